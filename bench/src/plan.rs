//! What is measured in which order, and what becomes of the samples.
//!
//! A step measures several contenders, the first of which is the baseline. Every round runs every
//! contender once, in an order that is rotated and turned around from round to round, so that
//! neither drift of the machine nor a neighbour in the order favours one of them. Ratios are formed
//! within a round only.

use serde::{Deserialize, Serialize};

use crate::{Failure, stats};

/// The contender that is also compared with each of the others.
pub(crate) const NETLOOM: &str = "netloom";

/// Several contenders, measured alike.
pub(crate) struct Step {
    /// Its name within the group, for `--only`.
    pub(crate) id: &'static str,
    /// The baseline, then the others.
    pub(crate) contenders: &'static [&'static str],
    /// What one sample gives, in this order.
    pub(crate) metrics: &'static [Metric],
}

/// A figure that a step gives for each contender.
pub(crate) struct Metric {
    /// Its name within the group.
    pub(crate) id: &'static str,
    /// The unit of its values.
    pub(crate) unit: &'static str,
    /// Which quantile of the values of a sample, and of all samples together, is the figure.
    pub(crate) quantile: f64,
}

/// Steps that share what they need.
pub(crate) struct Group {
    /// The name of its file in the results.
    pub(crate) id: &'static str,
    /// What it measures.
    pub(crate) steps: &'static [Step],
}

/// A published number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// Group, metric, contender, and `vs-` whom if that is not the baseline.
    pub(crate) id: String,
    /// The contender's median (or other quantile, see the metric) over all rounds.
    pub(crate) value: f64,
    /// The unit of `value`.
    pub(crate) unit: String,
    /// Whom `ratio` compares it with; the baseline has itself.
    pub(crate) against: String,
    /// The median over the rounds of contender / against.
    pub(crate) ratio: f64,
    /// The lower end of the 95 % interval of `ratio`.
    pub(crate) low: f64,
    /// The upper end.
    pub(crate) high: f64,
    /// How many rounds.
    pub(crate) rounds: usize,
}

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan<'a> {
    /// How many rounds.
    pub(crate) rounds: usize,
    /// What the names of steps must start with.
    pub(crate) only: &'a str,
}

/// Takes a sample: of a step (by its id) and a contender, the values of each metric.
pub(crate) type Measure<'a> = dyn FnMut(&str, &str) -> Result<Vec<Vec<f64>>, Failure> + 'a;

impl Group {
    /// The steps that `only` asks for.
    pub(crate) fn selected<'a>(&'a self, only: &'a str) -> impl Iterator<Item = &'a Step> {
        self.steps.iter().filter(move |step| {
            let name = format!("{}.{}", self.id, step.id);
            name.starts_with(only) || only.starts_with(&name)
        })
    }

    /// Whether `only` asks for all of it: a part is never published in its place.
    pub(crate) fn is_whole(&self, only: &str) -> bool {
        self.selected(only).count() == self.steps.len()
    }

    /// Runs all rounds.
    ///
    /// # Errors
    /// The first of `measure`: a contender that failed once has no figure.
    pub(crate) fn run(
        &self,
        plan: Plan<'_>,
        measure: &mut Measure<'_>,
    ) -> Result<Vec<Figure>, Failure> {
        let steps: Vec<&Step> = self.selected(plan.only).collect();
        let mut samples: Vec<Samples> = steps.iter().map(|step| Samples::of(step)).collect();
        for round in 0..plan.rounds {
            for (step, samples) in steps.iter().zip(&mut samples) {
                for contender in order(round, step.contenders.len()) {
                    let name = step.contenders[contender];
                    let values = measure(step.id, name).map_err(|error| {
                        format!("{}.{}, {name}, round {round}: {error}", self.id, step.id)
                    })?;
                    check(&values).map_err(|problem| format!("{name}: {problem}"))?;
                    samples.add(contender, values);
                }
            }
            eprintln!("{}: round {} of {}", self.id, round + 1, plan.rounds);
        }
        let parts = steps.iter().zip(&samples);
        Ok(parts.flat_map(|(step, samples)| samples.figures(self.id, step)).collect())
    }
}

/// A figure of nothing, or a ratio to nothing, is no figure.
fn check(values: &[Vec<f64>]) -> Result<(), Failure> {
    let is_something = |value: &f64| value.is_finite() && *value > 0.0;
    match values.iter().all(|sample| !sample.is_empty() && sample.iter().all(is_something)) {
        true => Ok(()),
        false => Err(format!("nothing came through: {values:?}").into()),
    }
}

/// The contenders of a round: each position in the order is taken by each contender equally often
/// in `2 n` rounds, and each goes as often before as behind each other one.
fn order(round: usize, contenders: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..contenders).collect();
    order.rotate_left((round / 2) % contenders.max(1));
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

/// By metric, contender and round: the values of one sample.
struct Samples(Vec<Vec<Vec<Vec<f64>>>>);

impl Samples {
    fn of(step: &Step) -> Self {
        Self(vec![vec![Vec::new(); step.contenders.len()]; step.metrics.len()])
    }

    fn add(&mut self, contender: usize, values: Vec<Vec<f64>>) {
        for (metric, values) in self.0.iter_mut().zip(values) {
            metric[contender].push(values);
        }
    }

    fn figures(&self, group: &str, step: &Step) -> Vec<Figure> {
        let mut figures = Vec::new();
        for (metric, samples) in step.metrics.iter().zip(&self.0) {
            for (own, name) in step.contenders.iter().enumerate() {
                let id = format!("{group}.{}.{name}", metric.id);
                figures.push(figure(id, metric, &samples[own], (step.contenders[0], &samples[0])));
                if *name != NETLOOM {
                    continue;
                }
                for other in (1..step.contenders.len()).filter(|other| *other != own) {
                    let rival = step.contenders[other];
                    let id = format!("{group}.{}.{name}.vs-{rival}", metric.id);
                    figures.push(figure(id, metric, &samples[own], (rival, &samples[other])));
                }
            }
        }
        figures
    }
}

fn figure(
    id: String,
    metric: &Metric,
    own: &[Vec<f64>],
    (against, theirs): (&str, &[Vec<f64>]),
) -> Figure {
    let one = |sample: &Vec<f64>| stats::quantile(sample, metric.quantile);
    let ratios: Vec<f64> = own.iter().zip(theirs).map(|(a, b)| one(a) / one(b)).collect();
    let (low, high) = stats::median_interval(&ratios);
    // Of samples with a single value each, the median is the figure, the quantile is inside.
    let pooled: Vec<f64> = own.concat();
    let is_single = own.iter().all(|sample| sample.len() == 1);
    Figure {
        id,
        value: match is_single {
            true => stats::median(&pooled),
            false => stats::quantile(&pooled, metric.quantile),
        },
        unit: metric.unit.to_owned(),
        against: against.to_owned(),
        ratio: stats::median(&ratios),
        low,
        high,
        rounds: ratios.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: Group = Group {
        id: "g",
        steps: &[Step {
            id: "s",
            contenders: &["plain", "bridge", "netloom"],
            metrics: &[Metric { id: "s-p50", unit: "us", quantile: 0.5 }],
        }],
    };

    #[test]
    fn every_contender_takes_every_place_equally_often() {
        for n in [2, 3, 4] {
            let rounds: Vec<_> = (0..2 * n).map(|round| order(round, n)).collect();
            for place in 0..n {
                for contender in 0..n {
                    let times = rounds.iter().filter(|order| order[place] == contender).count();
                    assert_eq!(times, 2, "contender {contender} at {place} of {n}");
                }
            }
        }
    }

    #[test]
    fn ratios_are_formed_within_a_round() {
        // The machine is twice as slow in every other round; the ratios do not see it.
        let mut calls = 0;
        let mut measure = |_: &str, contender: &str| {
            let slow = if (calls / 3) % 2 == 0 { 1.0 } else { 2.0 };
            calls += 1;
            let own = match contender {
                "plain" => 10.0,
                "bridge" => 20.0,
                _ => 15.0,
            };
            Ok(vec![vec![own * slow]])
        };
        let figures = GROUP.run(Plan { rounds: 8, only: "" }, &mut measure).unwrap();
        let ids: Vec<&str> = figures.iter().map(|figure| figure.id.as_str()).collect();
        let expected = ["g.s-p50.plain", "g.s-p50.bridge", "g.s-p50.netloom"];
        assert_eq!(ids[..3], expected);
        assert_eq!(ids[3], "g.s-p50.netloom.vs-bridge");
        let ratios: Vec<f64> = figures.iter().map(|figure| figure.ratio).collect();
        assert_eq!(ratios, [1.0, 2.0, 1.5, 0.75]);
        assert!(figures.iter().all(|figure| figure.low == figure.ratio && figure.rounds == 8));
    }

    #[test]
    fn a_contender_through_which_nothing_came_fails_the_group() {
        let mut measure = |_: &str, _: &str| Ok(vec![vec![0.0]]);
        let problem = GROUP.run(Plan { rounds: 1, only: "" }, &mut measure).unwrap_err();
        assert!(problem.to_string().contains("nothing came through"), "{problem}");
    }

    #[test]
    fn only_a_whole_group_is_whole() {
        assert!(GROUP.is_whole("") && GROUP.is_whole("g") && GROUP.is_whole("g.s-p50"));
        assert!(!GROUP.is_whole("other"));
    }
}
