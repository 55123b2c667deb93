# Asked of the program itself, so that it fits it.
source <(etcfs completion bash)
