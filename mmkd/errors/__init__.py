"""How errors are reported: their origin, remedies, and the end of a command."""
