//! Finetuning with an adapter: what stays, what is written beside the model, what is refused.

use tinylm_model::adapter::add_product;
use tinylm_model::engine::Tensors;
use tinylm_model::weights::read_tensors;

use super::*;

const ADAPTED: &str = "
adapter: { rank: 2, alpha: 8 }
train: { steps: 30, batch: 4, lr: 3e-2, validate_every: 10 }
";

fn tensors(folder: &Path, name: &str) -> Tensors {
    read_tensors(&folder.join(name)).unwrap()
}

fn about(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("adapter.json")).unwrap()).unwrap()
}

#[test]
fn a_model_with_an_adapter_is_its_base_but_for_the_product_to_the_bit() {
    let bench = Bench::new();
    let base = tensors(&bench.pretrain(SMALL).unwrap().out, "model.safetensors");
    let tuned = bench.finetune(&WORDS, ADAPTED).unwrap();
    let mut metrics = tuned.metrics.0.iter();
    let losses: Vec<f64> = tuned
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Metric { name, value, .. } if name == "validation_loss" => Some(*value),
            _ => None,
        })
        .collect();
    assert!(losses.last().unwrap() + 0.1 < losses[0], "{losses:?}");
    assert!(metrics.any(|(name, _)| name == "trained_parameters"));
    for (weights, factors) in [
        ("model.safetensors", "adapter.safetensors"),
        ("last.safetensors", "last_adapter.safetensors"),
    ] {
        let (weights, factors) = (tensors(&tuned.out, weights), tensors(&tuned.out, factors));
        assert_eq!(factors.len(), 8);
        for (name, tensor) in weights {
            let mut expected = base[&name].data.clone();
            let module = name.strip_suffix("weight").unwrap_or_default();
            if let Some(a) = factors.get(&format!("{module}lora_A")) {
                let b = &factors[&format!("{module}lora_B")];
                add_product(&mut expected, &a.data, &b.data, 4.0, tensor.shape[1]);
                assert!(expected != base[&name].data, "{name}");
            }
            assert!(tensor.data == expected, "{name}");
        }
    }
    assert_eq!(about(&tuned.out)["whole"], json!([]));
    assert_eq!(about(&tuned.out)["on"][0], "blocks.0.qkv.weight");
}

#[test]
fn what_got_new_rows_is_trained_itself() {
    let bench = Bench::new();
    let base = tensors(&bench.pretrain(SMALL).unwrap().out, "model.safetensors");
    let more = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"];
    let settings = format!("freeze: {{ embeddings: false }}\n{ADAPTED}");
    let tuned = bench.finetune(&more, &settings).unwrap();
    assert_eq!(
        about(&tuned.out)["whole"],
        json!(["embed.weight", "head.weight"])
    );
    let weights = tensors(&tuned.out, "model.safetensors");
    for (name, tensor) in &weights {
        let n = base[name].data.len();
        let stays = tensor.data[..n] == base[name].data;
        let is_changed = tensor.shape.len() == 2 && name != "positions.weight";
        assert_eq!(stays, !is_changed, "{name}");
    }
    let bench = Bench::new();
    bench.pretrain(SMALL).unwrap();
    let frozen = bench.finetune(&more, &settings.replace("false", "true"));
    let frozen = frozen.unwrap();
    assert_eq!(about(&frozen.out)["whole"], json!(["head.weight"]));
}

#[test]
fn an_adapter_that_cannot_be_is_refused() {
    let bench = Bench::new();
    bench.pretrain(SMALL).unwrap();
    let refusal = |settings: &str| {
        let settings = format!("{settings}\ntrain: {{ steps: 1 }}");
        said(&bench.finetune(&WORDS, &settings).unwrap_err())
    };
    let refusals = [
        "adapter: { rank: 0 }",
        "adapter: { alpha: 0 }",
        "adapter: { on: [] }",
        "adapter: { on: [gate] }",
        "adapter: {}\nfreeze: { blocks: 1 }",
        "adapter: { rank: 17 }",
        "adapter: {}\nkeep_optimizer: true",
        "adapter: {}\noptimizer_state: keep",
    ];
    assert_snapshot!(refusals.map(refusal).join("\n"), @"
    `adapter.rank`: must be at least 1
    `adapter.alpha`: must be above 0 and at most 1e6
    `adapter.on`: names no matrix
      leave it out for all
    `adapter.on` names `gate`, and the model has nothing of the kind that is not frozen
      leave `adapter.on` out for all of them
    `adapter.on` names `qkv`, `proj`, `gate`, `up`, `down`, and the model has nothing of the kind that is not frozen
      leave `adapter.on` out for all of them
    `adapter.rank` is 17, and the model is 16 wide
      a rank of 4 to 64 is usual
    `keep_optimizer`: excludes `adapter`
      leave it out: an adapter starts anew, and is not gone on with
    `optimizer_state`: excludes `adapter`
      leave it out: an adapter starts anew, and is not gone on with
    ");
}
