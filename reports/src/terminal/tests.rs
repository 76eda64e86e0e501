//! What a person sees at eighty columns, and what holds at every width.

use insta::assert_snapshot;

use super::*;
use crate::{
    comparison::{Selection, compare},
    testing::{dialogue, dialogue_slower, hostile, shakespeare_diverging},
};

fn shown(report: &Report) -> String {
    super::report(report, &TerminalOptions::default())
}

fn compared(runs: Vec<Report>, options: &TerminalOptions) -> String {
    super::comparison(&compare(runs, &Selection::default()).unwrap(), options)
}

/// Everything this module can print, at some width.
fn everything(options: &TerminalOptions) -> Vec<String> {
    vec![
        super::report(&dialogue(), options),
        super::report(&shakespeare_diverging(), options),
        super::report(&hostile(), options),
        super::report(&empty(), options),
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
    report.run.status = "interrupted".to_owned();
    report.run.elapsed_seconds = 0.0;
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

      started   2026-03-20 09:46 UTC, took 4m 05s
      cost      cpu 7m 46s, peak 1.3 GiB, 4 stages made, 1 hit, 4m 08s from scratch
      seed      1337
      code      git 01234567 with uncommitted changes, tinylm 0.1.0
      machine   vault, Linux x86_64, AMD EPYC 9B14, 2 cores, 8.0 GiB, on cpu
      command   tinylm run experiments/combined_41m.yaml -S base.train.lr=1e-3
      file      experiments/combined_41m.yaml
      tags      baseline

    Settings that differ from the defaults
      dialogs.hub        roskoN/dailydialog
      base.model.preset  forty-one
      base.train.lr      0.001

    Stages
         stage       kind      outcome               time     cpu   memory  artifact
      =  dialogs     download  hit quick-fox-11aa   2.10s   3.99s   31 MiB  b9b9b9b9
      ✓  shards      binarize  made                 12.3s   23.4s   89 MiB  dfdfdfdf
      ✓  base        pretrain  made                3m 48s  7m 13s  1.3 GiB  c1c1c1c1
      ✓  perplexity  evaluate  made                 4.40s   8.36s   44 MiB  0c0c0c0c
      ✓  answers     sample    made                 0.80s   1.52s   24 MiB  59595959

    Results
      base        validation_loss       1.9388
                  tokens_per_second   18,402.5
      perplexity  loss                  1.9388
                  perplexity            6.9500
                  unigram_perplexity    412.60
                  accuracy_top1         0.5512

    perplexity by source
                     loss  tokens
      dialogs      1.8105  20,480
      extra.jsonl  2.4127   3,811

    Counts
      shards      tokens 1,181,300
      perplexity  documents 1,204

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
      lr  ▁▂▃▄▅▆▇███▇▇▆▆▆▅▅▄▄▃▃▂▂▂▁▁     0       0  9.98e-4

    Samples of answers  2 samples
      › how are you ?
        i'm fine , thanks . and you ?
      › what is your name ?
        my name is tom . i'm calling about the room you advertised in yesterday's
        paper , is it still free ?

    Made from
      dialogs  download
        hub       roskoN/dailydialog
        commit    7f2c1e9d0b3a4c5d6e7f8091a2b3c4d5e6f70812
        files     train.zip  4.3 MiB
        blake3    9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f9f
        artifact  b9b9b9b9b9b9b9b9b9b9b9b9b9b9b9b9b9b9b9b9b9b9b9b9b9b9b9b9b9b9b9b9

    Warnings
      ! shards: 3 rows were rejected; see rejected.parquet

    Notes
      2026-03-20 09:51 UTC
      the first that answers
    "#);
}

#[test]
fn a_run_that_goes_on_and_diverged_says_both() {
    assert_snapshot!(shown(&shakespeare_diverging()), @r#"
    witty-wren-9e40  mini_shakespeare                                        running

      started   2026-03-20 10:03 UTC, going on for 1m 15s
      cost      cpu 2m 13s, peak 420 MiB, 0 stages made, 1 hit, 1m 10s from scratch
      seed      1337
      code      not in git, tinylm 0.1.0
      machine   vault, Linux x86_64, AMD EPYC 9B14, 2 cores, 8.0 GiB, on cpu
      command   tinylm run experiments/combined_41m.yaml -S base.train.lr=1e-3
      file      experiments/combined_41m.yaml
      tags      baseline

    Settings that differ from the defaults
      model.train.lr  0.03

    Stages
         stage   kind      outcome                 time     cpu   memory  artifact
      =  corpus  download  hit brave-otter-7f3a   0.10s   0.19s   20 MiB  c6c6c6c6
      ›  model   pretrain  running               1m 10s  2m 13s  420 MiB

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
    "#);
}

#[test]
fn two_runs_show_what_differs_and_which_is_better() {
    assert_snapshot!(compared(vec![dialogue(), dialogue_slower()], &TerminalOptions::default()), @r#"
    2 runs side by side
         run               experiment    status  started           tags
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

    Cost
                              A        B
      time               4m 05s   4m 11s
      cpu                7m 46s   7m 23s
      peak memory       1.3 GiB  1.3 GiB
      stages made, hit     4, 1     3, 2
      from scratch       4m 08s   4m 08s
    "#);
}

#[test]
fn runs_of_different_experiments_meet_stage_by_stage() {
    assert_snapshot!(compared(vec![dialogue(), dialogue_slower(), shakespeare_diverging()], &TerminalOptions::default()), @r#"
    3 runs side by side
         run               experiment        status   started           tags
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

    Samples of answers
      › how are you ?
        A i'm fine , thanks . and you ?
        B not bad . how was your trip ?
      › what is your name ?
        A B my name is tom . i'm calling about the room you advertised in
            yesterday's paper , is it still free ?

    Stages shared  the same artifacts, made once
      A B       dialogs, shards

    Cost
                              A        B        C
      time               4m 05s   4m 11s   1m 15s
      cpu                7m 46s   7m 23s   2m 13s
      peak memory       1.3 GiB  1.3 GiB  420 MiB
      stages made, hit     4, 1     3, 2     0, 1
      from scratch       4m 08s   4m 08s   1m 10s
    "#);
}

#[test]
fn a_sweep_is_a_table_with_the_effect_of_each_setting() {
    assert_snapshot!(compared(sweep(), &TerminalOptions::default()), @r#"
    9 runs  * the best base.validation_loss (lower is better)
         run     lr      seed  validation_loss      loss      time
      A  run-01  0.0001  1              2.2100    2.2100    4m 05s
      B  run-02  0.0001  2              2.2200    2.2200    4m 05s
      C  run-03  0.0001  3              2.2300    2.2300    4m 05s
      D  run-11  0.0003  1              2.0600    2.0600    4m 05s
      E  run-12  0.0003  2              2.0700    2.0700    4m 05s
      F  run-13  0.0003  3              2.0800    2.0800    4m 05s
      G  run-21  0.001   1              1.9100 *  1.9100 *  4m 05s
      H  run-22  0.001   2              1.9200    1.9200    4m 05s
      I  run-23  0.001   3              1.9300    1.9300    4m 05s

    Effect of each setting  on base.validation_loss, the largest first
      setting        value   runs    mean    best
      base.train.lr  0.001      3  1.9200  1.9100
                     0.0003     3  2.0700  2.0600   +7.8 %
                     0.0001     3  2.2200  2.2100  +15.6 %
      seed           1          3  2.0600  1.9100
                     2          3  2.0700  1.9200   +0.5 %
                     3          3  2.0800  1.9300   +1.0 %

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
    "#);
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
    let plain = super::report(&dialogue(), &TerminalOptions::default());
    let coloured = super::report(
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
        metrics: vec!["base.lr".to_owned()],
        axis: Axis::Time,
        ..TerminalOptions::default()
    };
    let text = super::report(&dialogue(), &options);
    assert!(
        text.contains("⠒⠒ lr") && text.contains("time") && !text.contains("perplexity            "),
        "{text}"
    );
}
