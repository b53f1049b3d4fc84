"""Pages that show what an objective looks at: boxes, masks, attention, classes."""
