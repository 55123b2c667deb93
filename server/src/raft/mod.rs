//! The only place that names openraft. To come.
