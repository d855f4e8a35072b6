//! Plots of cost against size, as SVG that follows the reader's light or dark scheme. Both axes are logarithmic: cost that
//! grows with N is then a line of the same slope as the guide, and a quadratic step shows as a steeper one.

use std::fmt::Write as _;

use crate::figures::{Figure, Store};

/// Who is drawn, in the order of their colours.
const SERIES: [&str; 5] = ["netloom", "raw netlink", "ip -batch", "pyroute2", "raw netlink, in chunks"];

/// What is drawn for a part.
const PLOTS: [(&str, &str, &str); 2] = [
    ("fabric", "up", "Seconds to build N x (bridge, veth, namespace, addresses)"),
    ("teardown", "down until gone", "Seconds to remove them, until they are gone"),
];

const STYLE: &str = "\
text{font:13px system-ui,-apple-system,'Segoe UI',sans-serif;fill:var(--soft)}\
.title{font-size:15px;font-weight:600;fill:var(--ink)}\
.name{font-weight:600;fill:var(--ink)}\
.grid{stroke:var(--grid);stroke-width:1}\
.axis{stroke:var(--soft);stroke-width:1}\
.guide{stroke:var(--soft);stroke-width:1;stroke-dasharray:2 4;fill:none}\
.line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}\
.dot{stroke:var(--page);stroke-width:2}\
.spread{stroke-width:1.5;opacity:.55}\
svg{--page:#fcfcfb;--ink:#0b0b0b;--soft:#52514e;--grid:#e4e3df;\
--c0:#2a78d6;--c1:#008300;--c2:#eb6834;--c3:#4a3aa7;--c4:#1baf7a}\
@media(prefers-color-scheme:dark){svg{--page:#1a1a19;--ink:#fff;--soft:#c3c2b7;--grid:#383835;\
--c0:#3987e5;--c1:#199e70;--c2:#d95926;--c3:#9085e9;--c4:#c98500}}";

/// The plots that there are figures for, each with its file's name.
pub(crate) fn all(store: &Store) -> Vec<(String, String)> {
    let drawn = PLOTS.iter().filter_map(|(part, work, title)| {
        let figures = of(store, part, work);
        has_sizes(&figures).then(|| (format!("performance-{part}.svg"), draw(&figures, title)))
    });
    drawn.collect()
}

/// What the plot of a part shows, where there is one.
pub(crate) fn caption(store: &Store, part: &str) -> Option<&'static str> {
    let (_, work, title) = PLOTS.iter().find(|plot| plot.0 == part)?;
    has_sizes(&of(store, part, work)).then_some(*title)
}

/// One size is no curve.
fn has_sizes(figures: &[&Figure]) -> bool {
    figures.iter().any(|figure| figure.n != figures[0].n)
}

fn of<'a>(store: &'a Store, part: &str, work: &str) -> Vec<&'a Figure> {
    store.figures.iter().filter(|f| f.part == part && f.work == work && f.unit == "s").collect()
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 52.0;
const BOTTOM: f64 = 48.0;

/// Where a value stands.
struct Scale {
    x: [f64; 2],
    y: [f64; 2],
}

impl Scale {
    #[allow(clippy::cast_precision_loss)] // sizes are small
    fn around(figures: &[&Figure]) -> Self {
        let sizes = figures.iter().map(|f| f.n as f64);
        let x = [sizes.clone().fold(f64::INFINITY, f64::min) / 1.15, sizes.fold(0.0, f64::max) * 1.1];
        let least = figures.iter().map(|f| f.min()).fold(f64::INFINITY, f64::min);
        let most = figures.iter().map(|f| f.max()).fold(0.0, f64::max);
        Self { x, y: [least / 1.6, most * 1.6] }
    }
    fn x(&self, value: f64) -> f64 {
        LEFT + (value / self.x[0]).ln() / (self.x[1] / self.x[0]).ln() * (WIDTH - LEFT - RIGHT)
    }
    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - (value / self.y[0]).ln() / (self.y[1] / self.y[0]).ln() * (HEIGHT - TOP - BOTTOM)
    }
}

fn draw(figures: &[&Figure], title: &str) -> String {
    let scale = Scale::around(figures);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         aria-label=\"{title}\">\n<style>{STYLE}</style>\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"8\" style=\"fill:var(--page)\"/>\n\
         <text class=\"title\" x=\"16\" y=\"28\">{title}</text>\n"
    );
    grid(&mut svg, &scale, figures);
    let mut labels: Vec<(f64, usize, String)> = Vec::new();
    for (colour, who) in SERIES.iter().enumerate().rev() {
        let mut line: Vec<&&Figure> = figures.iter().filter(|f| f.who == *who).collect();
        line.sort_by_key(|f| f.n);
        if let Some(last) = series(&mut svg, &scale, &line, colour) {
            labels.push((last, colour, (*who).to_owned()));
        }
    }
    names(&mut svg, labels);
    svg.push_str("</svg>\n");
    svg
}

#[allow(clippy::cast_precision_loss)]
fn grid(svg: &mut String, scale: &Scale, figures: &[&Figure]) {
    let right = WIDTH - RIGHT;
    let floor = HEIGHT - BOTTOM;
    for exponent in -4i32..5 {
        for factor in ["1", "3"] {
            let text = format!("{factor}e{exponent}"); // read, not calculated: 0.3 is to be called so
            let value: f64 = text.parse().unwrap_or(1.0);
            if value < scale.y[0] || value > scale.y[1] {
                continue;
            }
            let y = scale.y(value);
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{value} s</text>",
                LEFT - 8.0,
                y + 4.5
            );
        }
    }
    let mut sizes: Vec<usize> = figures.iter().map(|f| f.n).collect();
    sizes.sort_unstable();
    sizes.dedup();
    for n in &sizes {
        let x = scale.x(*n as f64);
        let _ = writeln!(
            svg,
            "<line class=\"axis\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{floor}\" y2=\"{}\"/>\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{n}</text>",
            floor + 5.0,
            floor + 20.0
        );
    }
    let _ = writeln!(
        svg,
        "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{floor}\" y2=\"{floor}\"/>\
         <text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">N, both axes logarithmic; dotted: cost proportional to N</text>",
        f64::midpoint(LEFT, right),
        HEIGHT - 10.0
    );
    guide(svg, scale, &sizes, figures);
}

/// A line of slope one from the cheapest point: what grows faster leaves it upwards.
#[allow(clippy::cast_precision_loss)]
fn guide(svg: &mut String, scale: &Scale, sizes: &[usize], figures: &[&Figure]) {
    let (Some(first), Some(last)) = (sizes.first(), sizes.last()) else { return };
    let (first, last) = (*first as f64, *last as f64);
    let start =
        figures.iter().filter(|f| f.n as f64 <= first).map(|f| f.median()).fold(f64::INFINITY, f64::min);
    let _ = writeln!(
        svg,
        "<path class=\"guide\" d=\"M{:.1} {:.1}L{:.1} {:.1}\"/>",
        scale.x(first),
        scale.y(start),
        scale.x(last),
        scale.y(start * last / first)
    );
}

/// Draws one line with its points and their spread; where it ends.
#[allow(clippy::cast_precision_loss)]
fn series(svg: &mut String, scale: &Scale, line: &[&&Figure], colour: usize) -> Option<f64> {
    let mut path = String::new();
    for figure in line {
        let (x, y) = (scale.x(figure.n as f64), scale.y(figure.median()));
        let _ = write!(path, "{}{x:.1} {y:.1}", if path.is_empty() { 'M' } else { 'L' });
        let _ = writeln!(
            svg,
            "<line class=\"spread\" style=\"stroke:var(--c{colour})\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
            scale.y(figure.min()),
            scale.y(figure.max())
        );
    }
    let _ = writeln!(svg, "<path class=\"line\" style=\"stroke:var(--c{colour})\" d=\"{path}\"/>");
    for figure in line {
        let (x, y) = (scale.x(figure.n as f64), scale.y(figure.median()));
        let _ = writeln!(
            svg,
            "<circle class=\"dot\" style=\"fill:var(--c{colour})\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\">\
             <title>{}, N={}: {:.3} s ({:.3} to {:.3})</title></circle>",
            figure.who,
            figure.n,
            figure.median(),
            figure.min(),
            figure.max()
        );
    }
    line.last().map(|figure| scale.y(figure.median()))
}

/// Writes the names beside the lines' ends, none over another.
fn names(svg: &mut String, mut labels: Vec<(f64, usize, String)>) {
    labels.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut lowest = TOP - 18.0;
    for (y, colour, who) in labels {
        let y = y.max(lowest + 18.0);
        lowest = y;
        let x = WIDTH - RIGHT + 10.0;
        let _ = writeln!(
            svg,
            "<circle style=\"fill:var(--c{colour})\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"5\"/>\
             <text class=\"name\" x=\"{:.1}\" y=\"{:.1}\">{who}</text>",
            x,
            x + 12.0,
            y + 4.5
        );
    }
}
