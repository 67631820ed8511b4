"""Files as people have them → arrays and tables; prepare and predict read the same formats."""
