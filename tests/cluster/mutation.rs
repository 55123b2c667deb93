//! Whether the tests of this binary would notice a method that does nothing.

#[test]
fn each_method_that_is_broken_fails_its_tests() {
    etcfs_tests::mutation::every_broken_method_is_noticed("cluster");
}
