"""What uses the method to judge references, thresholds and missed objects."""
