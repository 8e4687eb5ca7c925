"""Networks of other packages that propose boxes or masks, whatever the classes are (docs/proposals.md)."""
