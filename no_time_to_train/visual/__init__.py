"""What people look at: pictures of instances and of the memory, the gallery, and the HTML of every page."""
