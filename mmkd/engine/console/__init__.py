"""What a person sees of a run: a few lines on the screen, and all the rest in the log file."""
