//! The pure stages, by themselves: `cargo bench --bench pure`. From a file's text to a plan, without a kernel.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[allow(dead_code)]
#[path = "side_by_side/labs.rs"]
mod labs;

use std::hint::black_box;
use std::path::Path;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use netloom::inventory::{Found, Inventory};
use netloom::plan;
use netloom::resource::{Node, desired};
use netloom::topology::{LoadOptions, Topology, load};

use labs::{Extra, Shape, fabric};

const PROGRAM: &str = "/usr/bin/netloom";

fn checked(text: &str) -> Topology {
    load("netloom.yaml", text, &LoadOptions::default()).expect("the generated lab is valid")
}

/// What was found is what was wanted: a lab that is up.
fn converged(nodes: &[Node]) -> Inventory {
    let mut there = Inventory::default();
    for node in nodes {
        let resource = node.resource.clone();
        let digest = plan::digest(&resource);
        there.found.insert(node.id.clone(), Found { resource, defects: Vec::new(), digest });
    }
    there
}

/// Each stage for labs of growing size; cost per guest is to stay the same.
fn stages(criterion: &mut Criterion) {
    for n in [100, 1000, 10_000] {
        let text = Shape::Fabric.yaml(n);
        let topology = checked(&text);
        let nodes = desired::nodes(&topology, Path::new(PROGRAM)).unwrap();
        let there = converged(&nodes);
        let mut group = criterion.benchmark_group("fabric");
        group.sample_size(if n > 1000 { 10 } else { 30 }).throughput(Throughput::Elements(n as u64));
        group.bench_with_input(BenchmarkId::new("parse and check", n), &text, |b, text| {
            b.iter(|| checked(text))
        });
        group.bench_with_input(BenchmarkId::new("desired", n), &topology, |b, topology| {
            b.iter(|| desired::nodes(black_box(topology), Path::new(PROGRAM)).unwrap());
        });
        group.bench_with_input(BenchmarkId::new("plan, all new", n), &nodes, |b, nodes| {
            b.iter(|| plan::compare(black_box(nodes), &Inventory::default()).unwrap());
        });
        group.bench_with_input(BenchmarkId::new("plan, nothing to change", n), &nodes, |b, nodes| {
            b.iter(|| plan::compare(black_box(nodes), &there).unwrap());
        });
        group.bench_with_input(BenchmarkId::new("plan, removal", n), &there, |b, there| {
            b.iter(|| plan::removal(black_box(there)));
        });
        group.finish();
    }
}

/// What makes a lab more than links: rules to compile, switches in a chain, a large `expect`.
fn shapes(criterion: &mut Criterion) {
    let labs = [
        ("firewall", fabric(1000, Extra::Firewall(80))),
        ("chain of switches", Shape::Linear.yaml(1000)),
        ("mesh with 9,900 pairs expected", Shape::Mesh.yaml(100)),
    ];
    let mut group = criterion.benchmark_group("parse, check and desired");
    group.sample_size(20);
    for (name, text) in labs {
        group.bench_function(name, |b| {
            b.iter(|| desired::nodes(&checked(black_box(&text)), Path::new(PROGRAM)).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, stages, shapes);
criterion_main!(benches);
