"""A machine learning backend for Label Studio: what people annotate there is found in their other tasks."""
