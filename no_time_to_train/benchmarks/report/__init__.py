"""Finished runs beside the published figures: Markdown, HTML, CSV and a plot a benchmark."""
