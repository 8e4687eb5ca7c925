"""The paper's tables: data sets, class lists, published figures and reports."""
