//! Folders as transformers 5 and sentence-transformers 6 write them answer as those of before.

use emberd_daemon::engine::{folder_need, load_folder, load_ranker};
use emberd_protocol::ScoreActivation;
use serde_json::{Value, json};

use crate::support::{assert_close, copy_of, embed, load, texts, write};

#[test]
fn bases_of_rotary_positions_may_stand_with_their_kind_of_attention() {
    for (name, global, local) in [
        ("modernbert-cls", "global_rope_theta", "local_rope_theta"),
        ("gemma3-mean-dense2", "rope_theta", "rope_local_base_freq"),
    ] {
        let folder = copy_of(name);
        let file = folder.path().join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        let map = config.as_object_mut().unwrap();
        let mut base = |key: &str| json!({"rope_type": "default", "rope_theta": map.remove(key)});
        let bases = json!({"full_attention": base(global), "sliding_attention": base(local)});
        let every = map.remove("global_attn_every_n_layers").and_then(|every| every.as_u64());
        map.insert("rope_parameters".into(), bases);
        if let Some(every) = every {
            let layers = map["num_hidden_layers"].as_u64().unwrap();
            let kind = |i| if i % every == 0 { "full_attention" } else { "sliding_attention" };
            map.insert("layer_types".into(), (0..layers).map(kind).collect::<Vec<_>>().into());
        }
        write(&folder, "config.json", &config);
        let texts = &texts()[..8];
        let rows = embed(&load_folder(folder.path()).unwrap(), texts);
        assert_close(&rows, &embed(&load(name), texts), 1e-6);

        config["rope_parameters"]["sliding_attention"] = json!({"rope_theta": 50.0});
        write(&folder, "config.json", &config);
        let other = embed(&load_folder(folder.path()).unwrap(), texts);
        assert_ne!(other, rows, "{name}: the base counts");
        config["rope_parameters"]["full_attention"]["rope_type"] = "linear".into();
        write(&folder, "config.json", &config);
        assert!(load_folder(folder.path()).unwrap_err().to_string().contains("linear"), "{name}");
    }
}

#[test]
fn a_cross_encoder_with_modules_and_its_activation_in_a_file_of_its_own_is_loaded() {
    let folder = copy_of("cross-encoder");
    let module = "sentence_transformers.base.modules.transformer.Transformer";
    write(&folder, "modules.json", &json!([{"idx": 0, "name": "0", "path": "", "type": module}]));
    let own = |class| json!({"model_type": "CrossEncoder", "activation_fn": class});
    let file = "config_sentence_transformers.json";
    write(&folder, file, &own("torch.nn.modules.linear.Identity"));
    assert_eq!(load_ranker(folder.path()).unwrap().activation, ScoreActivation::Identity);
    assert!(folder_need(folder.path(), 1, 512, 512).unwrap().cpu_bytes > 0);
    // A class that is not of torch is not believed, nor is it there.
    write(&folder, file, &own("somebody.acts.Identity"));
    assert_eq!(load_ranker(folder.path()).unwrap().activation, ScoreActivation::Sigmoid);
}
