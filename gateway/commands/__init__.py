"""The commands of `gateway`, one module a noun. They may look into the catalogue; nobody else may
look into them."""
