"""Reading and writing files, so that nothing is lost and nothing strange gets in."""
