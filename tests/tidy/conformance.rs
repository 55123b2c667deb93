//! Which test shows which option of which RPC: server/docs/api.md has it as a table.
//!
//! The table is read off the tests: a case covers a field of a request if it, or
//! a helper that it calls, makes that request with that field, or posts it as
//! JSON. A field without a case fails, and so does a row that names a case which
//! is not there or does not cover it any more; `ETCFS_TEST_WRITE=1` writes all anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write as _,
    fs,
    path::Path,
};

use prost::Message as _;
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet, field_descriptor_proto::Type};
use serde_json::Value;
use syn::{
    Expr, Member, Token,
    parse::Parser as _,
    punctuated::Punctuated,
    visit::{self, Visit},
};

use crate::{files, none, root};

const DOCUMENT: &str = "server/docs/api.md";
/// Above it the document is written by hand.
const MARK: &str = "<!-- Below: made of the tests by tests/tidy/conformance.rs. -->\n";

/// Options that no client may set, with the reason.
const APART: [(&str, &str); 2] = [
    ("AuthUserAddRequest.hashedPassword", "filled by the server before it is proposed"),
    ("AuthUserChangePasswordRequest.hashedPassword", "filled by the server before it is proposed"),
];

#[test]
fn every_option_of_every_rpc_has_its_test() {
    let api = Api::read();
    let tests = Tests::read();
    let path = root().join(DOCUMENT);
    let document = fs::read_to_string(&path).expect(DOCUMENT);
    let (by_hand, made) = document.split_once(MARK).expect("the document has its mark");
    if env::var_os("ETCFS_TEST_WRITE").is_some() {
        fs::write(&path, format!("{by_hand}{MARK}{}", table(&api, &tests)))
            .expect("the document can be written");
        return;
    }
    let told: BTreeSet<&str> = made.lines().filter(|line| line.starts_with("| ")).collect();
    let mut breaches = Vec::new();
    for row in api.services.iter().flat_map(|service| api.rows(service)) {
        let begin = row.begin();
        let cover = told.iter().find_map(|line| line.strip_prefix(&begin)?.strip_suffix(" |"));
        match (cover, row.apart()) {
            (Some(cover), Some(reason)) if cover == reason => {}
            (Some(cover), None) if tests.covers(cover.trim_matches('`'), &api, &row) => {}
            (cover, _) => breaches.push(format!("{begin}{} does not cover it", cover.unwrap_or("nothing"))),
        }
    }
    if !breaches.is_empty() {
        breaches.push(
            "`ETCFS_TEST_WRITE=1 cargo nextest run -p etcfs-tests --test tidy every_option` writes the table"
                .into(),
        );
    }
    none(breaches);
}

fn table(api: &Api, tests: &Tests) -> String {
    let mut text = String::new();
    let mut empty = Vec::new();
    for service in &api.services {
        write!(text, "\n### {}\n\n| RPC | option | test |\n|---|---|---|\n", service.name).expect("memory");
        for row in api.rows(service) {
            let cover = row.apart().or_else(|| tests.best(api, &row).map(|case| format!("`{case}`")));
            match cover {
                Some(cover) => writeln!(text, "{}{cover} |", row.begin()).expect("memory"),
                None => empty.push(format!("no test covers {}", row.begin())),
            }
        }
    }
    none(empty);
    text
}

/// The services, and the messages that their requests are made of.
struct Api {
    services: Vec<Service>,
    messages: BTreeMap<String, DescriptorProto>,
    requests: BTreeSet<String>,
    /// Of the gateway, by method.
    paths: BTreeMap<String, Vec<String>>,
}

struct Service {
    name: String,
    /// Each with its request's name.
    methods: Vec<(String, String)>,
}

/// An option of an RPC: as its caller sees it, and the field that it is.
struct Row {
    method: String,
    option: String,
    message: String,
    /// None for a request without any.
    field: Option<FieldDescriptorProto>,
}

impl Row {
    /// What its line in the table begins with.
    fn begin(&self) -> String {
        format!("| {} | {} | ", self.method, self.option)
    }

    /// Why no client may set it.
    fn apart(&self) -> Option<String> {
        let full = format!("{}.{}", self.message, self.field.as_ref().map_or("", |field| field.name()));
        APART.iter().find(|(name, _)| *name == full).map(|(_, reason)| format!("none: {reason}"))
    }
}

impl Api {
    fn read() -> Self {
        let set =
            FileDescriptorSet::decode(etcfs_proto::DESCRIPTORS).expect("the descriptors are compiled in");
        let (mut services, mut messages) = (Vec::new(), BTreeMap::new());
        let packages = ["etcdserverpb", "v3lockpb", "v3electionpb", "mvccpb", "authpb"];
        for file in set.file.into_iter().filter(|file| packages.contains(&file.package())) {
            for service in &file.service {
                let methods = service.method.iter();
                let methods =
                    methods.map(|method| (method.name().to_owned(), last(method.input_type()).to_owned()));
                services.push(Service { name: service.name().to_owned(), methods: methods.collect() });
            }
            messages
                .extend(file.message_type.into_iter().map(|message| (message.name().to_owned(), message)));
        }
        let requests = services.iter().flat_map(|service| &service.methods);
        let requests = requests.map(|(_, request)| request.clone()).collect();
        Self { services, messages, requests, paths: paths() }
    }

    fn rows(&self, service: &Service) -> Vec<Row> {
        let mut rows = Vec::new();
        for (method, request) in &service.methods {
            let before = rows.len();
            self.push_rows(method, request, "", &mut rows, &mut BTreeSet::new());
            if rows.len() == before {
                let (method, message) = (method.clone(), request.clone());
                rows.push(Row { method, option: "(none)".into(), message, field: None });
            }
        }
        rows
    }

    /// The fields of a message, with those of the messages in it; each message once, and other
    /// requests under their own RPC alone.
    fn push_rows(
        &self,
        method: &str,
        message: &str,
        prefix: &str,
        rows: &mut Vec<Row>,
        seen: &mut BTreeSet<String>,
    ) {
        if !seen.insert(message.to_owned()) {
            return;
        }
        for field in &self.messages[message].field {
            let option = format!("{prefix}{}", field.name());
            rows.push(Row {
                method: method.to_owned(),
                option: option.clone(),
                message: message.to_owned(),
                field: Some(field.clone()),
            });
            let inner = last(field.type_name());
            if field.r#type() == Type::Message && !self.requests.contains(inner) {
                self.push_rows(method, inner, &format!("{option}."), rows, seen);
            }
        }
    }
}

/// The gateway's paths of each method, read off the .proto files.
fn paths() -> BTreeMap<String, Vec<String>> {
    let mut paths: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in files::below(&root().join("proto/etcd"), "proto") {
        let text = fs::read_to_string(file).expect("a .proto file");
        for rpc in text.split("  rpc ").skip(1) {
            let method = rpc.split('(').next().expect("an rpc has a name").to_owned();
            let posts = rpc.split("post: \"").skip(1).filter_map(|rest| rest.split('"').next());
            paths.entry(method).or_default().extend(posts.map(str::to_owned));
        }
    }
    paths
}

fn last(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// What one function of the tests does.
#[derive(Debug, Default)]
struct Function {
    file: String,
    name: String,
    /// It is a test, or a case of `on_both!` and its like.
    is_case: bool,
    /// Messages that it makes, each with the fields that it gives them.
    makes: BTreeSet<(String, String)>,
    /// Fields that it sets of what it has.
    sets: BTreeSet<String>,
    /// Variants that it names: enum and variant.
    names: BTreeSet<(String, String)>,
    calls: BTreeSet<String>,
    /// What it posts: path, and a field anywhere in the JSON.
    posts: BTreeSet<(String, String)>,
}

struct Tests {
    functions: Vec<Function>,
    /// Each case with all that it calls, nearest first.
    cases: Vec<(usize, Vec<usize>)>,
}

impl Tests {
    fn read() -> Self {
        let mut functions = Vec::new();
        for (name, text) in files::code() {
            if !["tests/api/", "tests/cluster/", "tests/src/api.rs"].iter().any(|part| name.starts_with(part))
            {
                continue;
            }
            let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            let mut reader = Reader { file: name.to_string(), functions: Vec::new(), cases: BTreeSet::new() };
            reader.visit_file(&parsed);
            for function in &mut reader.functions {
                function.is_case |= reader.cases.contains(&function.name);
            }
            functions.extend(reader.functions);
        }
        let cases = (0..functions.len()).filter(|nth| functions[*nth].is_case);
        let cases: Vec<_> = cases.map(|case| (case, reach(&functions, case))).collect();
        assert!(cases.len() > 200, "the cases are found");
        Self { functions, cases }
    }

    /// The case that covers a row most directly.
    fn best(&self, api: &Api, row: &Row) -> Option<String> {
        let covering =
            self.cases.iter().filter_map(|(case, reached)| Some((self.distance(reached, api, row)?, *case)));
        let (_, case) = covering.min_by_key(|(distance, case)| (*distance, self.name(*case)))?;
        Some(self.name(case))
    }

    fn covers(&self, name: &str, api: &Api, row: &Row) -> bool {
        let mut named = self.cases.iter().filter(|(case, _)| self.name(*case) == name);
        named.any(|(_, reached)| self.distance(reached, api, row).is_some())
    }

    /// How far from the case the field is given.
    fn distance(&self, reached: &[usize], api: &Api, row: &Row) -> Option<usize> {
        let made = camel(&row.message);
        let field = row.field.as_ref().map(|field| snake(field.name()));
        // A field may be set on a message that a helper has made.
        let case = &self.functions[*reached.first()?];
        let sets = field.as_ref().is_some_and(|field| case.sets.contains(field));
        let empty = String::new();
        let makes =
            |function: &Function, field: &String| function.makes.contains(&(made.clone(), field.clone()));
        reached.iter().position(|&nth| {
            let function = &self.functions[nth];
            let posts =
                |path: &String, field: &String| function.posts.contains(&(path.clone(), field.clone()));
            let posted = api
                .paths
                .get(&row.method)
                .into_iter()
                .flatten()
                .any(|path| posts(path, field.as_ref().unwrap_or(&empty)));
            let given = match &row.field {
                None => makes(function, &empty),
                Some(descriptor) => match descriptor.oneof_index {
                    Some(oneof) => {
                        let oneof =
                            &api.messages[&row.message].oneof_decl[usize::try_from(oneof).expect("small")];
                        function.names.contains(&(camel(oneof.name()), camel(descriptor.name())))
                    }
                    None => makes(function, &snake(descriptor.name())) || (sets && makes(function, &empty)),
                },
            };
            given || posted
        })
    }

    /// As it is run.
    fn name(&self, case: usize) -> String {
        let Function { file, name, .. } = &self.functions[case];
        let module = Path::new(file).with_extension("");
        let module = module.strip_prefix("tests").expect("cases are there").display().to_string();
        format!("{}::{name}", module.replace('/', "::"))
    }
}

/// A function and all that it calls, nearest first.
fn reach(functions: &[Function], from: usize) -> Vec<usize> {
    let mut reached = vec![from];
    let mut next = 0;
    while next < reached.len() {
        let function = &functions[reached[next]];
        let called = |nth: &usize| !functions[*nth].is_case && function.calls.contains(&functions[*nth].name);
        let all: Vec<usize> = (0..functions.len()).filter(called).collect();
        for nth in all {
            // One of the same file hides others of its name.
            let Function { file, name, .. } = &functions[nth];
            let is_own = *file == function.file;
            let is_hidden = || {
                functions
                    .iter()
                    .any(|other| other.name == *name && other.file == function.file && !other.is_case)
            };
            if !reached.contains(&nth) && (is_own || !is_hidden()) {
                reached.push(nth);
            }
        }
        next += 1;
    }
    reached
}

/// Reads the functions of one file.
struct Reader {
    file: String,
    functions: Vec<Function>,
    cases: BTreeSet<String>,
}

impl Reader {
    fn function(&mut self, name: &syn::Ident, attributes: &[syn::Attribute], body: &syn::Block) {
        let is_case = attributes.iter().any(|attribute| attribute.path().is_ident("test"));
        let mut function =
            Function { file: self.file.clone(), name: name.to_string(), is_case, ..Function::default() };
        function.visit_block(body);
        self.functions.push(function);
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        let mut table =
            Function { file: self.file.clone(), name: item.ident.to_string(), ..Function::default() };
        table.visit_expr(&item.expr);
        self.functions.push(table);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig.ident, &item.attrs, &item.block);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig.ident, &item.attrs, &item.block);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        if item.path.segments.last().is_some_and(|name| name.ident.to_string().starts_with("on_")) {
            let cases = Punctuated::<syn::Ident, Token![,]>::parse_terminated.parse2(item.tokens.clone());
            self.cases.extend(cases.expect("a list of cases").iter().map(ToString::to_string));
        }
    }
}

impl<'ast> Visit<'ast> for Function {
    fn visit_expr_struct(&mut self, item: &'ast syn::ExprStruct) {
        if let Some(message) = item.path.segments.last() {
            let message = message.ident.to_string();
            self.makes.insert((message.clone(), String::new()));
            for field in &item.fields {
                if let Member::Named(field) = &field.member {
                    let field = field.to_string();
                    self.makes.insert((message.clone(), field.trim_start_matches("r#").to_owned()));
                }
            }
        }
        visit::visit_expr_struct(self, item);
    }

    fn visit_expr_assign(&mut self, item: &'ast syn::ExprAssign) {
        if let Expr::Field(left) = &*item.left
            && let Member::Named(field) = &left.member
        {
            self.sets.insert(field.to_string().trim_start_matches("r#").to_owned());
        }
        visit::visit_expr_assign(self, item);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        if let [.., of, name] = names.as_slice() {
            self.names.insert((of.clone(), name.clone()));
            // `RangeRequest::default()` makes one, too.
            if name == "default" {
                self.makes.insert((of.clone(), String::new()));
            }
        }
        if let Some(name) = names.last() {
            self.calls.insert(name.clone());
        }
        visit::visit_path(self, path);
    }

    fn visit_expr_call(&mut self, item: &'ast syn::ExprCall) {
        self.post(&item.args);
        visit::visit_expr_call(self, item);
    }

    fn visit_expr_tuple(&mut self, item: &'ast syn::ExprTuple) {
        self.post(&item.elems);
        visit::visit_expr_tuple(self, item);
    }

    fn visit_expr_method_call(&mut self, item: &'ast syn::ExprMethodCall) {
        self.calls.insert(item.method.to_string());
        self.post(&item.args);
        visit::visit_expr_method_call(self, item);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        // Of macros that take expressions, such as assert_eq! and vec!; others say nothing here.
        let inner = Punctuated::<Expr, Token![,]>::parse_terminated.parse2(item.tokens.clone());
        for expression in inner.iter().flatten() {
            self.visit_expr(expression);
        }
    }
}

impl Function {
    /// Notes a path and the JSON behind it.
    fn post(&mut self, arguments: &Punctuated<Expr, Token![,]>) {
        let text = |nth: usize| match arguments.get(nth) {
            Some(Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. })) => Some(text.value()),
            _ => None,
        };
        let (Some(path), Some(json)) = (text(0), text(1)) else { return };
        if !path.starts_with("/v3/") {
            return;
        }
        self.posts.insert((path.clone(), String::new()));
        for value in serde_json::Deserializer::from_str(&json).into_iter::<Value>().map_while(Result::ok) {
            let mut todo = vec![&value];
            while let Some(value) = todo.pop() {
                match value {
                    Value::Object(fields) => {
                        self.posts.extend(fields.keys().map(|name| (path.clone(), snake(name))));
                        todo.extend(fields.values());
                    }
                    Value::Array(items) => todo.extend(items),
                    _ => {}
                }
            }
        }
    }
}

/// As generated code spells a field: `peerURLs` is `peer_ur_ls`.
fn snake(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (at, &letter) in letters.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| letters[before]);
        let after = letters.get(at + 1);
        // A word begins with a capital behind a small letter, or in front of one.
        let begins = letter.is_uppercase()
            && before.is_some_and(|before| {
                before != '_' && (!before.is_uppercase() || after.is_some_and(|after| after.is_lowercase()))
            });
        if begins {
            out.push('_');
        }
        out.extend(letter.to_lowercase());
    }
    out
}

/// As generated code spells a type.
fn camel(name: &str) -> String {
    let words = snake(name);
    let words = words.split('_').filter(|word| !word.is_empty());
    words.map(|word| format!("{}{}", word[..1].to_uppercase(), &word[1..])).collect()
}

#[test]
fn names_are_spelt_as_generated_code_has_them() {
    for (name, expected) in
        [("peerURLs", "peer_ur_ls"), ("ID", "id"), ("grantedTTL", "granted_ttl"), ("range_end", "range_end")]
    {
        assert_eq!(snake(name), expected);
    }
    for (name, expected) in [
        ("HashKVRequest", "HashKvRequest"),
        ("request_union", "RequestUnion"),
        ("LeaseTimeToLiveRequest", "LeaseTimeToLiveRequest"),
    ] {
        assert_eq!(camel(name), expected);
    }
}
