function __etcfs_asked
    set -l words (commandline --tokenize --cut-at-cursor --current-process) (commandline --current-token)
    ETCFS_COMPLETE=fish command etcfs -- $words 2>/dev/null
end
complete --command etcfs --keep-order --arguments '(__etcfs_asked)'
