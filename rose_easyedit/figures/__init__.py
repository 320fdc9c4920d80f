"""Figures of a diagnosis, each as PNG and SVG; matplotlib is imported when one is drawn."""
