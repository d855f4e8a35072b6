//! `make bench`: netloom and what people would use instead, on the same work, one after the other, again and again.
//!
//! Nothing here passes or fails: it measures, and writes what it found to `docs/performance.md`, with plots beside it
//! and raw figures in `target/bench/`. Everything runs in a private world of namespaces (`world`).

mod converged;
mod fabric;
mod figures;
mod labs;
mod limits;
mod machines;
mod measure;
mod plot;
mod probes;
mod report;
mod rivals;
mod small;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use figures::Store;
use labs::Shape;
use measure::Tools;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The parts, in the order they are measured.
const PARTS: [&str; 8] = ["small", "fabric", "teardown", "held", "converged", "probes", "machines", "curve"];

/// Measures netloom beside its alternatives.
#[derive(Debug, Parser)]
struct Options {
    /// What to measure: small, fabric, teardown, held, converged, probes, machines, curve; all but the
    /// last by default
    #[arg(long, value_delimiter = ',')]
    parts: Vec<String>,
    /// Rounds; in each everybody has one turn
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Sizes of the fabric
    #[arg(long, value_delimiter = ',', default_values_t = [100, 500, 1000, 2000])]
    sizes: Vec<usize>,
    /// Who is to be left out, such as `pyroute2,mininet`, which take longest
    #[arg(long, value_delimiter = ',')]
    without: Vec<String>,
    /// Size of the chain of switches, mininet's `linear`
    #[arg(long, default_value_t = 100)]
    linear: usize,
    /// Size of the lab that is up already
    #[arg(long, default_value_t = 1000)]
    converged: usize,
    /// Number of guests that all probe each other
    #[arg(long, default_value_t = 100)]
    probes: usize,
    /// Numbers of virtual machines
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4])]
    machines: Vec<usize>,
    /// Number of virtual machines for the curve of simultaneous boots
    #[arg(long, default_value_t = 8)]
    curve: usize,
    /// Keep the machine busy meanwhile, with so many processes that only count; the figures stay beside those without
    #[arg(long, default_value_t = 0)]
    load: usize,
    /// Another netloom to measure
    #[arg(long, default_value = env!("CARGO_BIN_EXE_netloom"))]
    netloom: PathBuf,
    /// Directory of the raw figures
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench"))]
    out: PathBuf,
    /// Only print the tables; leave docs/performance.md alone
    #[arg(long)]
    print: bool,
    /// Measure nothing; write the tables and plots of what was measured before
    #[arg(long)]
    render: bool,
    /// Print a lab's file and do nothing else: fabric, linear, mesh or machines, and its size
    #[arg(long, num_args = 2, value_names = ["SHAPE", "N"])]
    generate: Vec<String>,
    /// Said by `cargo bench`; without it, as in a run of all tests, nothing is measured
    #[arg(long)]
    bench: bool,
}

fn main() -> ExitCode {
    match work(&Options::parse()) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn work(options: &Options) -> Result<i32> {
    if let [shape, n] = options.generate.as_slice() {
        print!("{}", Shape::named(shape).ok_or("no such shape")?.yaml(n.parse()?));
        return Ok(0);
    }
    if options.render {
        report::write(&Store::open(&options.out, options.load)?, options.print)?;
        return Ok(0);
    }
    if !options.bench {
        println!("nothing is measured without --bench; `make bench` says it");
        return Ok(0);
    }
    if let Some(unknown) = options.parts.iter().find(|part| !PARTS.contains(&part.as_str())) {
        return Err(format!("there is no part `{unknown}`, only {}", PARTS.join(", ")).into());
    }
    if let Some(code) = world::enter()? {
        return Ok(code);
    }
    measure(options)?;
    Ok(0)
}

fn measure(options: &Options) -> Result<()> {
    let tools = Tools::new(options.netloom.clone())?;
    let mut store = Store::open(&options.out, options.load)?;
    let _load = measure::Load::start(options.load)?;
    println!("{}", store.machine);
    // The same labs serve both, so they are measured in one go.
    let wanted = |part: &str| {
        (options.parts.is_empty() && part != "curve") || options.parts.iter().any(|wanted| wanted == part)
    };
    for part in PARTS {
        if !wanted(part) || (part == "teardown" && wanted("fabric")) {
            continue;
        }
        println!("{part}:");
        store.begin(part)?;
        match part {
            "small" => small::measure(&tools, &mut store, options.runs)?,
            "fabric" | "teardown" => {
                for part in ["fabric", "teardown"] {
                    store.begin(part)?;
                }
                fabric::measure(&tools, &mut store, options)?;
                store.save("teardown")?;
                store.save("fabric")?;
            }
            "held" => fabric::held(&tools, &mut store, options)?,
            "converged" => converged::measure(&tools, &mut store, options.runs, options.converged)?,
            "probes" => probes::measure(&tools, &mut store, options.runs, options.probes)?,
            "curve" => machines::curve(&tools, &mut store, options.runs, options.curve)?,
            _ => machines::measure(&tools, &mut store, options.runs, &options.machines)?,
        }
        store.save(part)?;
    }
    report::write(&store, options.print)
}
