"""The verbs of lorakit, each a module with functions that return frozen reports; this is the Python API."""
