"""The page to draw on, and what serves it."""
