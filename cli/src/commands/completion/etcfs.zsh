_etcfs_asked() {
    local -a found directories names
    found=(${(f)"$(ETCFS_COMPLETE=zsh command etcfs -- "${(@Q)words[1,CURRENT]}" 2>/dev/null)"})
    if (( ! $#found )); then
        _files
        return
    fi
    # A directory of keys goes on.
    directories=(${(M)found:#*/}) names=(${found:#*/})
    (( ! $#directories )) || compadd -S '' -- $directories
    (( ! $#names )) || compadd -- $names
}
compdef _etcfs_asked etcfs
