"""The tables of the paper: data sets to prepare, published figures, and reports that compare runs with them."""
