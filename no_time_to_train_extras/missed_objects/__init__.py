"""Kinds of errors; and why objects were missed: the step at which each was lost, what that costs in AP, and a page."""
