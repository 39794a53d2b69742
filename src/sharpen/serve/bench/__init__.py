"""How fast a model answers on this machine, beside other engines and against load."""
