# Asked of the program itself, so that it fits it.
etcfs completion fish | source
