"""What people look at: pictures, galleries and pages."""
