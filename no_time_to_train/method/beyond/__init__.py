"""What the paper does not have: off by default."""
