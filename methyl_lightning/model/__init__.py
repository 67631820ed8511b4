"""A network with all that a checkpoint carries, and its predictions of any grid."""
