"""Run lorakit with `python -m lorakit_cli`."""

from lorakit_cli.app import main

main()
