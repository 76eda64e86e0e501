//! The view at eighty columns, and laws of every width.

use insta::assert_snapshot;

use super::*;
use crate::{
    comparison::{Selection, compare},
    curve::Axis,
    report::Report,
    sections::{of_comparison, of_report},
    testing::{dialogue, dialogue_slower, hostile, shakespeare_diverging},
};

fn print(report: &Report, options: &TerminalOptions) -> String {
    super::print(&of_report(report, &[]), options)
}

fn shown(report: &Report) -> String {
    print(report, &TerminalOptions::default())
}

fn compared(runs: Vec<Report>, options: &TerminalOptions) -> String {
    let comparison = compare(runs, &Selection::default()).unwrap();
    super::print(&of_comparison(&comparison), options)
}

/// Everything this module can print, at some width.
fn everything(options: &TerminalOptions) -> Vec<String> {
    vec![
        print(&dialogue(), options),
        print(&shakespeare_diverging(), options),
        print(&hostile(), options),
        print(&empty(), options),
        compared(vec![dialogue(), dialogue_slower()], options),
        compared(
            vec![dialogue(), shakespeare_diverging(), hostile()],
            options,
        ),
        compared(sweep(), options),
        compared(vec![empty(), empty()], options),
    ]
}

/// A run that was killed before its first stage.
fn empty() -> Report {
    let mut report = dialogue();
    report.run.status = tinylm_registry::Status::Interrupted;
    report.elapsed_seconds = 0.0;
    report.settings.clear();
    report.stages.clear();
    report.finals.clear();
    report.curves.clear();
    report.samples.clear();
    report.events.clear();
    report.notes.clear();
    report
}

/// Nine runs: three rates by three seeds.
fn sweep() -> Vec<Report> {
    let mut runs = Vec::new();
    for (idx, rate) in [1e-4, 3e-4, 1e-3].into_iter().enumerate() {
        for seed in 1..=3u64 {
            let mut report = dialogue();
            let loss = 2.2 - 0.15 * idx as f64 + 0.01 * seed as f64;
            report.run.name = format!("run-{idx}{seed}");
            report.run.seed = Some(seed);
            report.settings[0].value = seed.to_string();
            report.settings[3].value = rate.to_string();
            for last in report
                .finals
                .iter_mut()
                .filter(|last| last.metric.ends_with("loss"))
            {
                last.value = loss;
            }
            for last in report
                .finals
                .iter_mut()
                .filter(|last| last.metric == "perplexity")
            {
                last.value = loss.exp();
            }
            runs.push(report);
        }
    }
    runs
}

#[test]
fn a_run_is_told_from_its_question_to_its_sources() {
    assert_snapshot!(shown(&dialogue()), @r#"
    brave-otter-7f3a  combined_41m                                              done
    Does a 41M model trained on everyday dialogue hold a conversation?

    perplexity.perplexity 6.9500   perplexity.accuracy_top1 0.5512
        base.validation_loss 1.9388   base.tokens_per_second 18,402.5
        time 4 min 05 s

    Run
      started   2026-03-20 09:46 UTC, took 4 min 05 s
      cost      cpu 7 min 46 s, peak 1.4 GB, 4 stages made, 1 hit, 4 min 08 s from
                scratch
      seed      1337
      tags      baseline

      Note  2026-03-20 09:51 UTC
        the first that answers

    base   ⠒⠒ loss 1.8436   ◆ validation_loss 2.0234
         7 ┤◆⢄
           │  ⠣⡀
         6 ┤   ⠉⠢⣀
           │     ⠈⠑⢄◆
         5 ┤        ⠙⠤⣀⡀
           │           ⠉⠢⣀
         4 ┤             ⠈⠙⠒◆⣄
           │                  ⠙⠒⠒⠤⣀ ◆
         3 ┤                       ⠉⠒⠒⠒⠤⣀⣀⣀◆
           │                               ⠉⠙⠒⠒⠒⠲⠤⣄⣀◆⣀⣀    ◆
         2 ┤                                           ⠉⠉⠉⠉⠉⠒⠒⠒⠒⠒⠦⠤◆⠒⠦⠤⠤⠤⠤⠤◆⣠⠤⠤⢄⣀⣀⡠◆
           └┬─────────────┬─────────────┬──────────────┬─────────────┬─────────────┬
            0            200           400            600           800     1k steps

                                            last  lowest  highest
      base  lr  ▁▂▃▄▅▆▇███▇▇▆▆▆▅▅▄▄▃▃▂▂▂▁▁     0       0  9.98e-4

    Results
      stage       metric                 value
      base        validation_loss       1.9388
                  tokens_per_second   18,402.5
      perplexity  loss                  1.9388
                  perplexity            6.9500
                  unigram_perplexity    412.60
                  accuracy_top1         0.5512

      perplexity by source
      source         loss  tokens
      dialogs      1.8105  20,480
      extra.jsonl  2.4127   3,811

    Samples of answers  2 samples
      › how are you ?
        i'm fine , thanks . and you ?
      › what is your name ?
        my name is tom . i'm calling about the room you advertised in yesterday's
        paper , is it still free ?

    Warnings
      ! shards: 3 rows were rejected; see rejected.parquet

    Stages
      stage       kind      outcome                   time         cpu  memory
      dialogs     download  hit quick-fox-11aa       2.1 s       4.0 s   33 MB
      shards      binarize  made                    12.3 s      23.4 s   94 MB
      base        pretrain  made                3 min 48 s  7 min 13 s  1.4 GB
      perplexity  evaluate  made                     4.4 s       8.4 s   46 MB
      answers     sample    made                    0.80 s       1.5 s   25 MB

    Settings  that differ from the defaults
      setting            value
      seed               1337
      dialogs.hub        roskoN/dailydialog
      base.model.preset  forty-one
      base.train.lr      0.001

    -v tells more: 2 counts, 1 setting left at their defaults, how it was run, made
    from
    "#);
}

#[test]
fn a_brief_report_fits_on_a_screen_and_names_what_it_leaves_out() {
    let options = TerminalOptions {
        is_brief: true,
        ..TerminalOptions::default()
    };
    let brief = print(&dialogue(), &options);
    // A note, tags and a question are told too.
    assert!(brief.lines().count() <= 50, "{brief}");
    assert!(!brief.contains("\nSettings"), "{brief}");
    let named = brief.split("-v tells more: ").nth(1).unwrap();
    assert!(
        named.contains("stages") && named.contains("settings"),
        "{brief}"
    );
    // The stages are the story of a run that is not done.
    assert!(print(&shakespeare_diverging(), &options).contains("\nStages\n"));
}

#[test]
fn a_run_that_goes_on_and_diverged_says_both() {
    assert_snapshot!(shown(&shakespeare_diverging()), @r#"
    witty-wren-9e40  mini_shakespeare                                        running

    time 1 min 15 s

    Run
      started   2026-03-20 10:03 UTC, going on for 1 min 15 s
      cost      cpu 2 min 13 s, peak 440 MB, 0 stages made, 1 hit, 1 min 10 s from
                scratch
      seed      1337
      tags      baseline

    model   ⠒⠒ loss NaN × NaN at step 678
           │                                           ⢀⣀⠤⠒⠊××××××××××××××××××××××××
       4.6 ┤                                        ⣀⠤⠊⠁
           │                                   ⣀⡠⠔⠒⠉
           │                              ⢀⡠⠔⠒⠉
       4.4 ┤                          ⢀⣀⠤⠒⠁
           │                      ⣀⠤⠒⠊⠁
           │                 ⢀⠤⠔⠊⠉
       4.2 ┤             ⢀⡠⠔⠒⠁
           │        ⢀⡠⠤⠒⠉⠁
           │     ⡠⠒⠊⠁
         4 ┤⣀⠤⠔⠊⠉
           └┬─────────────┬─────────────┬──────────────┬─────────────┬─────────────┬
            0            200           400            600           800     1k steps

    Stages
      stage   kind      outcome                     time         cpu  memory
      corpus  download  hit brave-otter-7f3a      0.10 s      0.19 s   21 MB
      model   pretrain  running               1 min 10 s  2 min 13 s  440 MB

    Settings  that differ from the defaults
      setting         value
      seed            7
      model.train.lr  0.03

    -v tells more: how it was run
    "#);
}

#[test]
fn two_runs_show_what_differs_and_which_is_better() {
    assert_snapshot!(compared(vec![dialogue(), dialogue_slower()], &TerminalOptions::default()), @r#"
    2 runs side by side
    calm-heron-02c1 has the best perplexity.perplexity: 6.5280 against 6.9500 of
    brave-otter-7f3a (-6.1 %)

         run               experiment    status  started, UTC      tags
      A  brave-otter-7f3a  combined_41m  done    2026-03-20 09:46  baseline
      B  calm-heron-02c1   combined_41m  done    2026-03-20 09:46

    Settings that differ
                     A      B
      base.train.lr  0.001  0.0003

    Metrics  * the better
                                               A         B  B against A
      base        validation_loss       1.9388    1.8761 *       -3.2 %
                  tokens_per_second   18,402.5 *  18,211         -1.0 %
                  loss                  1.8436 *  1.9288         +4.6 %
      perplexity  loss                  1.9388    1.8761 *       -3.2 %
                  perplexity            6.9500    6.5280 *       -6.1 %
                  unigram_perplexity    412.60         –
                  accuracy_top1         0.5512         –
                  documents              1,204         –

    perplexity by source  loss
                          A         B  B against A
      dialogs      1.8105    1.7533 *       -3.2 %
      extra.jsonl  2.4127 *  2.4301         +0.7 %

    Cost
                                 A           B
      time              4 min 05 s  4 min 11 s
      cpu               7 min 46 s  7 min 23 s
      peak memory           1.4 GB      1.4 GB
      stages made, hit        4, 1        3, 2
      from scratch      4 min 08 s  4 min 08 s

    base validation_loss   A 2.0234   B 2.1389
           │⡍⠢⡀
         7 ┤⠈⠢⡈⠢⣀
           │  ⠈⠢⡀⠑⢄
         6 ┤    ⠈⠢⡀⠑⠤⣀
           │      ⠈⠢A ⠑⠢⣀
         5 ┤         ⠉⠢⢄ ⠉⠢⢄
           │            ⠉⠒⢄⡀⠉⠑⠢⢄⣀
         4 ┤               ⠈⠒⠢⢄⡀ ⠉⠒⠤B⡀
           │                   ⠈⠉⠒⠤⣀ ⠈⠉⠒⠢⠤⣀⡀
         3 ┤                        ⠉⠉⠒⠒⠤⠤⣀⡈⠉⠉⠑⠒⠒⠢⠤⠤⣀⣀⡀
           │                               ⠈⠉⠉⠑⠒⠒⠢⠤⠤A⣀⣈⣉⠉⠒⠒⠢⠤⠤⠤⢄⣀⣀⣀⡀
           │                                            ⠉⠉⠉⠑⠒⠒⠒⠒⠒⠒⠒B⠭⠭⠭⠭⠭⠭⠭⢕⣒⣒⣒⣒⣒⣒⣒B
           └┬─────────────┬─────────────┬──────────────┬─────────────┬─────────────┬
            0            200           400            600           800     1k steps

    base loss   A 1.8436   B 1.9288
           │⢳⢄⡀
         7 ┤ ⠉⢗⢆⡀
           │   ⠣⡘⠢⣀
         6 ┤    ⠈⠲A⠑⢤⡀
           │       ⠑⢄⠈⠒⠦⡀
         5 ┤         ⠙⠢⢄⡈⠑⠢⣀⡀
           │            ⠑⠢⣀ ⠉⠓B⢄⡀
         4 ┤               ⠉⠑⠦⣀ ⠈⠑⠒⠤⣀⡀
           │                  ⠈⠉⠑⠒⢤⣀ ⠈⠉⠒⠲⠤⢄⣀⡀
         3 ┤                       ⠈⠉⠉⠑⠲⢄⣀A⣀⠈⠉⠒⠒⠢⠤⠤⣀⣀⡀
           │                                ⠉⠒⠒⠒⠒⠤⢄⣀⣠⢌B⠉⠑⠒⠒⠒⠤⠤⠤⠤⣀⣀⣀⣀⣀
         2 ┤                                           ⠉⠉⠉⠉⠉⠒⠒⠒⠑⠒⠦A⠒⠒⠯⠭⠭⠭⠭⠵⣖⣲⠶B⢖⣒⣒⡲B
           └┬─────────────┬─────────────┬──────────────┬─────────────┬─────────────┬
            0            200           400            600           800     1k steps

    Samples of answers
      › how are you ?
        A i'm fine , thanks . and you ?        B not bad . how was your trip ?
      › what is your name ?
        A my name is tom . i'm calling about   B my name is tom . i'm calling about
          the room you advertised in             the room you advertised in
          yesterday's paper , is it still        yesterday's paper , is it still
          free ?                                 free ?

    Stages shared  the same artifacts, made once
      all       dialogs, shards
    "#);
}

#[test]
fn runs_of_different_experiments_meet_stage_by_stage() {
    assert_snapshot!(compared(vec![dialogue(), dialogue_slower(), shakespeare_diverging()], &TerminalOptions::default()), @r#"
    3 runs side by side
    calm-heron-02c1 has the best perplexity.perplexity: 6.5280 against 6.9500 of
    brave-otter-7f3a (-6.1 %)

         run               experiment        status   started, UTC      tags
      A  brave-otter-7f3a  combined_41m      done     2026-03-20 09:46  baseline
      B  calm-heron-02c1   combined_41m      done     2026-03-20 09:46
      C  witty-wren-9e40   mini_shakespeare  running  2026-03-20 10:03  baseline

    Settings that differ
                         A                   B                   C
      seed               1337                1337                7
      dialogs.hub        roskoN/dailydialog  roskoN/dailydialog  –
      base.model.preset  forty-one           forty-one           –
      base.train.lr      0.001               0.0003              0.03

    Metrics  * the better
                                                A            B      C
      shards      tokens              1,181,300    1,181,300      –
      base        validation_loss        1.9388       1.8761 *    –
                                                      -3.2 %
                  tokens_per_second    18,402.5 *     18,211      –
                                                      -1.0 %
                  loss                   1.8436 *     1.9288    NaN
                                                      +4.6 %
      perplexity  loss                   1.9388       1.8761 *    –
                                                      -3.2 %
                  perplexity             6.9500       6.5280 *    –
                                                      -6.1 %
                  unigram_perplexity     412.60            –      –
                  accuracy_top1          0.5512            –      –
                  documents               1,204            –      –

    perplexity by source  loss
                          A         B    C
      dialogs      1.8105    1.7533 *  –
                             -3.2 %
      extra.jsonl  2.4127 *  2.4301    –
                             +0.7 %

    Cost
                                 A           B           C
      time              4 min 05 s  4 min 11 s     running
      cpu               7 min 46 s  7 min 23 s  2 min 13 s
      peak memory           1.4 GB      1.4 GB      440 MB
      stages made, hit        4, 1        3, 2        0, 1
      from scratch      4 min 08 s  4 min 08 s  1 min 10 s

    base validation_loss   A 2.0234   B 2.1389
           │⡍⠢⡀
         7 ┤⠈⠢⡈⠢⣀
           │  ⠈⠢⡀⠑⢄
         6 ┤    ⠈⠢⡀⠑⠤⣀
           │      ⠈⠢A ⠑⠢⣀
         5 ┤         ⠉⠢⢄ ⠉⠢⢄
           │            ⠉⠒⢄⡀⠉⠑⠢⢄⣀
         4 ┤               ⠈⠒⠢⢄⡀ ⠉⠒⠤B⡀
           │                   ⠈⠉⠒⠤⣀ ⠈⠉⠒⠢⠤⣀⡀
         3 ┤                        ⠉⠉⠒⠒⠤⠤⣀⡈⠉⠉⠑⠒⠒⠢⠤⠤⣀⣀⡀
           │                               ⠈⠉⠉⠑⠒⠒⠢⠤⠤A⣀⣈⣉⠉⠒⠒⠢⠤⠤⠤⢄⣀⣀⣀⡀
           │                                            ⠉⠉⠉⠑⠒⠒⠒⠒⠒⠒⠒B⠭⠭⠭⠭⠭⠭⠭⢕⣒⣒⣒⣒⣒⣒⣒B
           └┬─────────────┬─────────────┬──────────────┬─────────────┬─────────────┬
            0            200           400            600           800     1k steps

    base loss   A 1.8436   B 1.9288   C NaN
           │⢳⢄⡀                                             ××××××××××××××××××××××××
         7 ┤ ⠉⢗⢆⡀
           │   ⠣⡘⠢⣀
         6 ┤    ⠈⠲A⠑⢤⡀
           │       ⠑⢄⠈⠒⠦⡀
         5 ┤         ⠙⠢⢄⡈⠑⠢⣀⡀                   ⢀⣀⣀⣀⣀⣀⣀⣀⣀⠤⠤C
           │   ⢀⣀⣀⣀⣀⣀⣀⣀⣀⠵⠦⣤⠤⠭⠷B⢤⡔⠒⠒⠒⠒⠒⠒⠒⠒⠉C⠉⠉⠉⠉⠉⠁
         4 ┤⠉⠉⠉⠁           ⠉⠑⠦⣀ ⠈⠑⠒⠤⣀⡀
           │                  ⠈⠉⠑⠒⢤⣀ ⠈⠉⠒⠲⠤⢄⣀⡀
         3 ┤                       ⠈⠉⠉⠑⠲⢄⣀⣀⣀⠈⠉⠒⠒⠢⠤⠤⣀⣀⡀
           │                                ⠉⠒⠒⠒⠒⠤⢄⣀⣠⢌A⠉⠑⠒⠒⠒⠤⠤⠤⠤⣀⣀B⣀⣀
         2 ┤                                           ⠉⠉⠉⠉⠉⠒⠒⠒⠑⠒⠦⠤⠒⠒⠯⠭⠭⠭⠭⠵⣖⣲⠶⠶⢖⣒⣒⡲B
           └┬─────────────┬─────────────┬──────────────┬─────────────┬─────────────┬
            0            200           400            600           800     1k steps

    Samples of answers
      › how are you ?
        A i'm fine , thanks . and you ?
        B not bad . how was your trip ?
      › what is your name ?
        A B my name is tom . i'm calling about the room you advertised in
            yesterday's paper , is it still free ?

    Stages shared  the same artifacts, made once
      A B       dialogs, shards
    "#);
}

#[test]
fn a_sweep_is_a_table_with_the_effect_of_each_setting() {
    assert_snapshot!(compared(sweep(), &TerminalOptions::default()), @r#"
    9 runs side by side
    run-21 has the best perplexity.perplexity: 6.7531 against 9.1157 of run-01
    (-25.9 %)

    9 runs  * the best perplexity.perplexity (lower is better)
         run     seed  lr      validation_loss      loss    perplexity          time
      A  run-01  1     0.0001           2.2100    2.2100        9.1157    4 min 05 s
      B  run-02  2     0.0001           2.2200    2.2200        9.2073    4 min 05 s
      C  run-03  3     0.0001           2.2300    2.2300        9.2999    4 min 05 s
      D  run-11  1     0.0003           2.0600    2.0600        7.8460    4 min 05 s
      E  run-12  2     0.0003           2.0700    2.0700        7.9248    4 min 05 s
      F  run-13  3     0.0003           2.0800    2.0800        8.0045    4 min 05 s
      G  run-21  1     0.001            1.9100 *  1.9100 *      6.7531 *  4 min 05 s
      H  run-22  2     0.001            1.9200    1.9200        6.8210    4 min 05 s
      I  run-23  3     0.001            1.9300    1.9300        6.8895    4 min 05 s

    Seeds  runs that differ only in their seed are one group
      perplexity.perplexity
      runs  group      seeds    mean  deviation     min     max
      A–C   lr=0.0001      3  9.2076    0.09208  9.1157  9.2999
      D–F   lr=0.0003      3  7.9251    0.07925  7.8460  8.0045
      G–I   lr=0.001       3  6.8212    0.06821  6.7531  6.8895
      D–F       better than A–C by 1.283, 1.251 to 1.314 at 95 %: more than seeds
                explain (3 seeds, in pairs)
      G–I       better than A–C by 2.386, 2.327 to 2.446 at 95 %: more than seeds
                explain (3 seeds, in pairs)

    Effect of each setting  on perplexity.perplexity, the largest first
      setting        value   runs    mean    best   behind
      base.train.lr  0.001      3  6.8212  6.7531
                     0.0003     3  7.9251  7.8460  +16.2 %
                     0.0001     3  9.2076  9.1157  +35.0 %
      seed           1          3  7.9049  6.7531
                     2          3  7.9844  6.8210   +1.0 %
                     3          3  8.0646  6.8895   +2.0 %

    base validation_loss   D 2.0234   E 2.0234   F 2.0234   G 2.0234   H 2.0234
        I 2.0234   and 3 more
         7 ┤⠣⡀
           │ ⠈⠢⡀
         6 ┤   ⠈⠢⡀
           │     ⠈⠢⡀
         5 ┤       ⠈D⢄⡀
           │          ⠈⠒⢄⡀
           │             ⠈⠒⢄
         4 ┤                ⠉⠑⠢⢄⣀
           │                     ⠉⠒⠤E⡀
         3 ┤                         ⠈⠉⠒⠢⠤⣀⡀
           │                               F⠉⠉⠑⠒⠒⠢⠤⠤⣀⣀⣀⣀
           │                                            ⠉⠉⠉G⠒⠒⠒⠒⠒⠒⠒H⠤⠤⠤⠤⠤⠤⠤⢄⣀⣀⣀⣀⣀⣀⣀I
           └┬─────────────┬─────────────┬──────────────┬─────────────┬─────────────┬
            0            200           400            600           800     1k steps

    Samples of answers
      › how are you ?
        A B C D E F G H I i'm fine , thanks . and you ?
      › what is your name ?
        A B C D E F G H I my name is tom . i'm calling about the room you advertised
                          in yesterday's paper , is it still free ?

    Stages shared  the same artifacts, made once
      all       dialogs, shards, base, perplexity, answers

    -v tells more: every metric over the seeds
    "#);
}

/// Forty documents on which the second run is better by three hundredths a token.
fn losses(digest: &str) -> String {
    let is_first = dialogue()
        .stage("perplexity")
        .unwrap()
        .row
        .artifact
        .as_deref()
        == Some(digest);
    let line = |idx: usize| {
        let nats = 20.0 + (idx % 7) as f64
            - if is_first {
                0.0
            } else {
                0.2 + 0.05 * (idx % 5) as f64
            };
        format!("{{\"digest\":\"{idx}\",\"tokens\":10,\"bytes\":40,\"nats\":{nats}}}\n")
    };
    (0..40).map(line).collect()
}

#[test]
fn documents_say_what_they_explain_and_of_one_seed_nothing_is_said() {
    let mut comparison =
        compare(vec![dialogue(), dialogue_slower()], &Selection::default()).unwrap();
    comparison.pair_documents(&|digest| Some(losses(digest)));
    let shown = super::print(&of_comparison(&comparison), &TerminalOptions::default());
    let documents = shown
        .split("\n\n")
        .find(|part| part.starts_with("Documents"))
        .unwrap();
    assert_snapshot!(documents, @"
    Documents  the same ones, drawn again in pairs
      perplexity.loss
      B         better than A by 0.0300 nats per token, 0.0279 to 0.0321 at 95 %:
                more than the choice of documents explains (40 documents)
      seeds     one of each: what another seed would change, nobody can say
    ");
    let first = dialogue().stage("perplexity").unwrap().row.artifact.clone();
    comparison.pair_documents(&|digest| (first.as_deref() == Some(digest)).then(|| losses(digest)));
    let shown = super::print(&of_comparison(&comparison), &TerminalOptions::default());
    let documents = shown
        .split("\n\n")
        .find(|part| part.starts_with("Documents"))
        .unwrap();
    assert_snapshot!(documents, @"
    Documents  the same ones, drawn again in pairs
      perplexity.loss
      B         its losses of single documents are not here; running it again
                measures them
    ");
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for width in (20..=160).step_by(7).chain([40, 60, 80]) {
        let options = TerminalOptions {
            width,
            ..TerminalOptions::default()
        };
        for line in everything(&options).iter().flat_map(|text| text.lines()) {
            let columns = crate::text::width(line);
            assert!(columns <= width, "{columns} > {width}: {line}");
        }
    }
}

#[test]
fn nothing_from_outside_reaches_the_terminal_as_a_command() {
    for text in everything(&TerminalOptions::default()) {
        assert!(!text.chars().any(|c| c != '\n' && c.is_control()));
        assert!(!text.contains(['\u{202e}', '\u{feff}']));
    }
    // In colour only our own sequences are there: they set colours and nothing else.
    let coloured = everything(&TerminalOptions {
        colour: true,
        ..TerminalOptions::default()
    });
    let sequences = coloured.iter().flat_map(|text| text.split('\x1b').skip(1));
    let mut n_sequences = 0;
    for sequence in sequences {
        let (code, _) = sequence
            .strip_prefix('[')
            .and_then(|rest| rest.split_once('m'))
            .unwrap();
        assert!(
            ["0", "1", "2", "31", "32", "33", "34", "35", "36"].contains(&code),
            "{code}"
        );
        n_sequences += 1;
    }
    assert!(n_sequences > 100);
}

#[test]
fn colour_changes_nothing_but_the_colour() {
    let plain = print(&dialogue(), &TerminalOptions::default());
    let coloured = print(
        &dialogue(),
        &TerminalOptions {
            colour: true,
            ..TerminalOptions::default()
        },
    );
    let stripped: String = coloured
        .split('\x1b')
        .enumerate()
        .map(|(idx, part)| {
            if idx == 0 {
                part
            } else {
                part.split_once('m').unwrap().1
            }
        })
        .collect();
    assert_eq!(plain, stripped);
}

#[test]
fn a_metric_can_be_chosen_and_drawn_against_time() {
    let options = TerminalOptions {
        axis: Axis::Time,
        ..TerminalOptions::default()
    };
    let report = dialogue();
    let document = of_report(&report, &["base.lr".to_owned()]);
    let text = super::print(&document, &options);
    assert!(
        text.contains("⠒⠒ lr") && text.contains("time") && !text.contains("perplexity            "),
        "{text}"
    );
}

#[test]
fn a_law_is_told_and_drawn_at_eighty_columns() {
    let wanted = crate::fit::Wanted {
        budgets: Vec::new(),
        predictions: vec![crate::fit::Ask::Of(crate::fit::Scale {
            weights: 1e7,
            tokens: 3e7,
        })],
    };
    let comparison = compare(crate::testing::scaled(), &Selection::default()).unwrap();
    let fit = crate::fit::Fit::of(&comparison, &wanted).unwrap();
    let document = crate::sections::of_fit(&fit);
    assert_snapshot!(super::print(&document, &TerminalOptions::default()), @"
    A law of loss, fitted to 11 runs
    L = 1.16 + 16.6 / N^0.281 + 207 / D^0.404, 0.63 % off on unseen runs

    The law  L = E + A / N^a + B / D^b
         value           90 %
      E   1.16   0.993 – 1.27  what no model learns of this text
      a  0.281  0.213 – 0.358  the power of weights
      b  0.404  0.378 – 0.438  the power of tokens
      A   16.6    9.13 – 34.9  goes with a
      B    207      151 – 317  goes with b

    perplexity.loss by weights   A 100k weights   B 600k weights   C 3M weights
        ? predicted
      2.82 ┤A⠤⢄⡀
           │   ⠈⠉⠉⠒⠢⢄⡀
           │B⣀⡀      ⠈⠉⠒⠤⢄⡀
      2.51 ┤  ⠈⠑⠢⣀        ⠈⠉⠉⠒⠤⢄⡀
           │C⠒⠢⢄⡀ ⠉⠑⠢⢄⣀         ⠈⠉⠉⠒A⠤⢄⣀
           │    ⠈⠒⠤⢄⡀  ⠉⠒⠢⠤⠤⣀           ⠉⠉⠑⠢⠤⠤⣀⣀⡀
      2.24 ┤        ⠈⠑⠒⠤⣀⡀   ⠉⠒⠢⢄⣀              ⠈⠑⠒⠒⠤⠤⢄⣀⣀
           │             ⠈⠑⠒⠤⣀    ⠉⠉B⠢⢄⣀⣀                ⠉⠉⠑A⠒⠒⠤⠤⢄⣀⣀⣀
           │                  ⠉⠑⠢⠤⣀⣀     ⠉⠑⠢⠤⠤⣀                      ⠉⠉⠑⠒⠒⠒⠤⠤⠤⢄⣀⣀⣀⣀⡀
         2 ┤                        C⠑⠢⠤⣀⣀⡀    ⠉⠉⠑⠒⠤⠤⣀⣀⡀                           A
           │                              ⠈⠑⠢⠤⠤⣀⡀      ⠈⠉⠉⠒⠒B⠤⠤⣀⣀⡀
      1.78 ┤                                    ⠈⠉⠉⠒⠤⠤⢄⡀         ⠈⠉⠑⠒⠒⠤⠤⠤⠤⣀⣀
           │                                           ⠈⠉⠉⠒⠒C⠤⠤⣀            ⠉⠉⠉⠉⠒⠒⠒B
           │                                                    ⠉⠉⠑⠒⠒⠒⠤⠤⢄⣀⣀
      1.58 ┤                                                               ⠉⠉⠉⠑⠒⠒⠤⠤⠤
           │                                                                       ?
           └────────────┬───────────────────┬───────────────────┬───────────────────
                       1M                 3.2M                 10M tokens

    Best size for a budget  operations 6 N D, of the middle size for each D
      operations  weights           90 %  tokens           90 %    loss
         1.46e12  76.4k *  64.5k – 88.9k   3.17M  2.73M – 3.76M  2.3483
         5.82e12     173k    158k – 190k   5.61M   5.1M – 6.15M  2.1037
         2.33e13     392k    372k – 420k    9.9M  9.23M – 10.4M  1.9093
         8.73e13     854k    792k – 962k     17M  15.1M – 18.4M  1.7613
        * is beyond the sizes or tokens of all runs: there the law is a guess.

    Predicted  what one more run would end at
      weights  tokens    loss             90 %
          10M     30M  1.5328  1.4995 – 1.5621
        Up to 3.33 times beyond the weights or tokens of all runs: the interval
        takes the law to hold there.

    How well it fits  unseen: each run by a law of all others
      its own runs  0.33 % off on average (root mean square), 0.62 % at most
      runs unseen   0.63 % off on average (root mean square), 1.31 % at most

    Left out
      ! grey-gull-0011: it has no perplexity.loss

    What is meant
      L         perplexity.loss of each run, in nats for a token
      N         all weights of the model, the embedding too
      D         tokens that it was trained on
      90 %      of laws fitted to the runs weighed anew by chance
      but       2 runs read their data more than once, up to 3.00 times, and the law
                takes every token for a new one

    -v tells more: runs fitted
    ");
    for width in [20, 47, 80, 200] {
        let options = TerminalOptions {
            width,
            is_full: true,
            ..TerminalOptions::default()
        };
        for line in super::print(&document, &options).lines() {
            assert!(crate::text::width(line) <= width, "{width}: {line}");
        }
    }
}
