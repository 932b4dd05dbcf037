"""Where adapters and bases come from: the library, local files, the embedded model."""
