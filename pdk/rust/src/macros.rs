/// Makes a plugin of a function: its exports, and its manifest.
///
/// ```
/// use millrace_pdk::*;
///
/// stage!(shout);
///
/// fn shout(r: &Record, out: &mut Out) -> Result {
///     out.emit(&r.text()?.to_uppercase())
/// }
/// # fn main() {}
/// ```
///
/// Name and version are those of the crate. Behind the function, in any order:
///
/// | setting | |
/// |---|---|
/// | `config: Type` | a [`config!`](crate::config!) struct, or any [`Config`](crate::Config); the function gets it as a third parameter: `fn f(r: &Record, out: &mut Out, config: &Type) -> Result` |
/// | `config: Type = parse` | any other type, with the function `fn(&[u8]) -> Result<Type, impl Display>` that reads it from JSON: `config: Rules = config::by_serde` with the feature `serde` |
/// | `schema: "..."` | the JSON Schema of the configuration, if `Type` does not bring it: `include_str!("schema.json")` |
/// | `outputs: { AUDIT: "audit" }` | the outputs beside the default one; `AUDIT` becomes a constant for [`Out::to`](crate::Out::to) |
/// | `sample: ["...", ...]` | records in envelope form, such as `r#"{"key":"k","value":{"a":1}}"#`, for the warm-up and for tests: representative ones make the first batches fast |
/// | `fuel_per_record: n` | what a record may cost |
/// | `memory_mb: n` | the most memory that it needs |
/// | `name: "..."`, `version: "..."` | instead of the crate's |
/// | `deterministic: false` | if the same record may be answered differently |
///
/// A setting that is wrong does not compile.
#[macro_export]
macro_rules! stage {
    ($function:path $(,)?) => {
        $crate::__stage! { @set [$function] [] [] [] [] [::core::env!("CARGO_PKG_NAME")] [::core::env!("CARGO_PKG_VERSION")] [] }
    };
    ($function:path, $($settings:tt)+) => {
        $crate::__stage! { @set [$function] [] [] [] [] [::core::env!("CARGO_PKG_NAME")] [::core::env!("CARGO_PKG_VERSION")] [] $($settings)+ }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __stage {
    // Function, config, schema, outputs, sample, name, version, more.
    (@set $f:tt $config:tt $schema:tt $outputs:tt $sample:tt $name:tt $version:tt $more:tt) => {
        $crate::__stage! { @make $f $config $schema $outputs $sample $name $version $more }
    };
    (@set $f:tt [] $schema:tt $outputs:tt $sample:tt $name:tt $version:tt $more:tt config: $type:ty = $read:expr $(, $($rest:tt)*)?) => {
        $crate::__stage! { @set $f [$type, $read] $schema $outputs $sample $name $version $more $($($rest)*)? }
    };
    (@set $f:tt [] $schema:tt $outputs:tt $sample:tt $name:tt $version:tt $more:tt config: $type:ty $(, $($rest:tt)*)?) => {
        $crate::__stage! { @set $f [$type] $schema $outputs $sample $name $version $more $($($rest)*)? }
    };
    (@set $f:tt $config:tt [] $outputs:tt $sample:tt $name:tt $version:tt $more:tt schema: $json:expr $(, $($rest:tt)*)?) => {
        $crate::__stage! { @set $f $config [$json] $outputs $sample $name $version $more $($($rest)*)? }
    };
    (@set $f:tt $config:tt $schema:tt [] $sample:tt $name:tt $version:tt $more:tt outputs: { $($outputs:tt)* } $(, $($rest:tt)*)?) => {
        $crate::__stage! { @set $f $config $schema [$($outputs)*] $sample $name $version $more $($($rest)*)? }
    };
    (@set $f:tt $config:tt $schema:tt $outputs:tt [] $name:tt $version:tt $more:tt sample: [$($sample:expr),* $(,)?] $(, $($rest:tt)*)?) => {
        $crate::__stage! { @set $f $config $schema $outputs [$($sample),*] $name $version $more $($($rest)*)? }
    };
    (@set $f:tt $config:tt $schema:tt $outputs:tt $sample:tt $old:tt $version:tt $more:tt name: $name:expr $(, $($rest:tt)*)?) => {
        $crate::__stage! { @set $f $config $schema $outputs $sample [$name] $version $more $($($rest)*)? }
    };
    (@set $f:tt $config:tt $schema:tt $outputs:tt $sample:tt $name:tt $old:tt $more:tt version: $version:expr $(, $($rest:tt)*)?) => {
        $crate::__stage! { @set $f $config $schema $outputs $sample $name [$version] $more $($($rest)*)? }
    };
    (@set $f:tt $config:tt $schema:tt $outputs:tt $sample:tt $name:tt $version:tt [$($more:tt)*] fuel_per_record: $n:expr $(, $($rest:tt)*)?) => {
        $crate::__stage! { @set $f $config $schema $outputs $sample $name $version [$($more)* ",\"fuel_per_record\":" $n;] $($($rest)*)? }
    };
    (@set $f:tt $config:tt $schema:tt $outputs:tt $sample:tt $name:tt $version:tt [$($more:tt)*] memory_mb: $n:expr $(, $($rest:tt)*)?) => {
        $crate::__stage! { @set $f $config $schema $outputs $sample $name $version [$($more)* ",\"memory_mb\":" $n;] $($($rest)*)? }
    };
    (@set $f:tt $config:tt $schema:tt $outputs:tt $sample:tt $name:tt $version:tt $more:tt deterministic: true $(, $($rest:tt)*)?) => {
        $crate::__stage! { @set $f $config $schema $outputs $sample $name $version $more $($($rest)*)? }
    };
    (@set $f:tt $config:tt $schema:tt $outputs:tt $sample:tt $name:tt $version:tt $more:tt deterministic: false $(, $($rest:tt)*)?) => {
        $crate::__stage! { @set $f $config $schema $outputs $sample $name $version $more not_deterministic: 0, $($($rest)*)? }
    };
    (@set $f:tt $config:tt $schema:tt $outputs:tt $sample:tt $name:tt $version:tt [$($more:tt)*] not_deterministic: 0, $($rest:tt)*) => {
        $crate::__stage! { @set $f $config $schema $outputs $sample $name $version [$($more)* ",\"deterministic\":false";] $($rest)* }
    };
    (@set $f:tt $config:tt $schema:tt $outputs:tt $sample:tt $name:tt $version:tt $more:tt $key:ident : $($rest:tt)*) => {
        ::core::compile_error!(::core::concat!(
            "stage!: `", ::core::stringify!($key), "` is no setting, is given twice, or has a wrong form; the settings are ",
            "config: Type, schema: \"...\", outputs: { AUDIT: \"audit\" }, sample: [\"...\"], fuel_per_record: n, memory_mb: n, ",
            "name: \"...\", version: \"...\", deterministic: false"
        ));
    };
    (@set $f:tt $config:tt $schema:tt $outputs:tt $sample:tt $name:tt $version:tt $more:tt $($rest:tt)+) => {
        ::core::compile_error!(::core::concat!(
            "stage!: expected `setting: value`, found `", ::core::stringify!($($rest)+), "`"
        ));
    };

    (@make [$f:path] [$($config:tt)*] [$($schema:tt)*] [$($output:ident : $label:expr),* $(,)?] [$($sample:expr),*] [$name:expr] [$version:expr] [$($key:literal $($number:expr)?;)*]) => {
        $crate::__stage! { @outputs 1; $($output)* }

        const _: () = {
            use $crate::rt::Piece;

            const HEAD: &[Piece] = &[
                Piece::Text("{\"abi\":1,\"name\":"),
                Piece::Quoted($name),
                Piece::Text(",\"version\":"),
                Piece::Quoted($version),
                Piece::Text(",\"mode\":\"call\",\"outputs\":[\"default\""),
                $( Piece::Text(","), Piece::Quoted($label), )*
                Piece::Text("]"),
            ];
            const SAMPLE: &[Piece] = &[$( Piece::Sample($sample) ),*];
            const MORE: &[Piece] = &[
                $( Piece::Text($key), $( Piece::Number($number), )? )*
            ];
            const CONFIG: &[Piece] = $crate::__stage!(@schema [$($config)*] [$($schema)*]);
            const TEXT: $crate::rt::Text = $crate::rt::manifest(&[HEAD, SAMPLE, MORE, CONFIG, &[Piece::Text("}")]]);
            $crate::rt::check_name($name);

            #[cfg_attr(target_arch = "wasm32", link_section = "stage.manifest")]
            #[used]
            static MANIFEST: [u8; TEXT.size()] = TEXT.bytes();

            $crate::__stage!(@exports $f; $($config)*);
        };
    };

    (@outputs $n:expr; ) => {};
    (@outputs $n:expr; $output:ident $($rest:ident)*) => {
        #[allow(dead_code)]
        const $output: $crate::Output = $crate::Output::at($n);
        $crate::__stage! { @outputs $n + 1; $($rest)* }
    };

    (@schema [] []) => { &[] };
    (@schema [] [$json:expr]) => { ::core::compile_error!("stage!: a schema without config: the function would not see what it allows") };
    (@schema [$type:ty $(, $read:expr)?] [$json:expr]) => { &[Piece::Text(",\"config\":"), Piece::Json($json)] };
    (@schema [$type:ty, $read:expr] []) => { &[] };
    (@schema [$type:ty] []) => { &[Piece::Text(",\"config\":"), Piece::Schema(&<$type as $crate::Config>::SCHEMA)] };

    (@exports $f:path; ) => {
        $crate::__stage! { @common () }

        /// # Safety
        /// `ptr` and `len` name a request frame in this memory.
        #[cfg_attr(target_arch = "wasm32", no_mangle)]
        #[allow(dead_code)]
        unsafe extern "C" fn stage_batch(ptr: *const u8, len: u32) -> u64 {
            let _: fn(&$crate::Record<'_>, &mut $crate::Out<'_>) -> $crate::Result = $f;
            (*::core::ptr::addr_of_mut!(STAGE)).batch(ptr, len, |record, out, _| $f(record, out))
        }
    };
    (@exports $f:path; $type:ty) => {
        $crate::__stage! { @exports $f; $type, <$type as $crate::Config>::from_json }
    };
    (@exports $f:path; $type:ty, $read:expr) => {
        $crate::__stage! { @common ($type) }

        /// # Safety
        /// `ptr` and `len` name the configuration in this memory.
        #[cfg_attr(target_arch = "wasm32", no_mangle)]
        #[allow(dead_code)]
        unsafe extern "C" fn stage_init(ptr: *const u8, len: u32) -> i32 {
            (*::core::ptr::addr_of_mut!(STAGE)).init(ptr, len, |json: &[u8]| ($read)(json))
        }

        /// # Safety
        /// `ptr` and `len` name a request frame in this memory.
        #[cfg_attr(target_arch = "wasm32", no_mangle)]
        #[allow(dead_code)]
        unsafe extern "C" fn stage_batch(ptr: *const u8, len: u32) -> u64 {
            let _: fn(&$crate::Record<'_>, &mut $crate::Out<'_>, &$type) -> $crate::Result = $f;
            (*::core::ptr::addr_of_mut!(STAGE)).batch(ptr, len, |record, out, config| match config {
                ::core::option::Option::Some(config) => $f(record, out, config),
                ::core::option::Option::None => $crate::fail(1, "the stage was not configured: stage_init was not called"),
            })
        }
    };

    (@common ($($type:tt)*)) => {
        static mut STAGE: $crate::rt::Stage<($($type)*)> = $crate::rt::Stage::new();

        #[cfg_attr(target_arch = "wasm32", no_mangle)]
        #[allow(dead_code)]
        extern "C" fn stage_abi_1() {}

        #[cfg_attr(target_arch = "wasm32", no_mangle)]
        #[allow(dead_code)]
        unsafe extern "C" fn stage_alloc(size: u32) -> *mut u8 {
            (*::core::ptr::addr_of_mut!(STAGE)).alloc(size)
        }
    };
}
