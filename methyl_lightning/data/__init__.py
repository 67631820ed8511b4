"""The store, its split into views, and blocks of the grid."""
