_etcfs() {
    local IFS=$'\n'
    COMPREPLY=($(ETCFS_COMPLETE=bash command etcfs -- "${COMP_WORDS[@]:0:COMP_CWORD+1}" 2>/dev/null))
    # A directory of keys goes on.
    [[ ${#COMPREPLY[@]} -ne 1 || ${COMPREPLY[0]} != */ ]] || compopt -o nospace
}
complete -o default -o nosort -F _etcfs etcfs
