"""For the chapters: figures, and figures with sliders."""
