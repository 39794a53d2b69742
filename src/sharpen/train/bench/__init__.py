"""What a step costs on this machine, measured: by module, by option, by collective."""
