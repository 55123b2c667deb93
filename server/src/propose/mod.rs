//! All that one may ask of the cluster. To come.
