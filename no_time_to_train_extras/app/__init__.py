"""The app: show objects with a click, find them in all photos, and correct what was found, in the browser."""
