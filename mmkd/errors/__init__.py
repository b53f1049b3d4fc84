"""How errors are told: where they come from, what to try, and how a command ends."""
