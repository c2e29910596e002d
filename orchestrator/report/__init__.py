"""One page, with a file per question that holds its figures and its section."""
