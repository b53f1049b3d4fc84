"""The console of a run: a few lines on the screen, everything else in the log file."""
