"""The subcommands, one file each: a signature, a request, one call of a service, a report to print."""
