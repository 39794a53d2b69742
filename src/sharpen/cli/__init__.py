"""The command line: one file a command; only parsing, calling the API, printing."""
