"""Pages with the boxes, masks, attention maps and classes of an objective."""
