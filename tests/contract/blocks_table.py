"""Where a separate probe of transformers 5.23 found the blocks: path → layers → families."""

BLOCKS: dict[tuple[str, int], str] = {
    ("model.layers", 4): """
        llama gemma gemma2 gemma3_text qwen2 qwen3 phi phi3 mistral mixtral olmo2 stablelm starcoder2 cohere
        granite jamba afmoe apertus arcee aria_text axk1 bailing_hybrid bamba beam bitnet cohere2
        cohere2_moe cwm deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4 diffllama doge dots1 ernie4_5
        ernie4_5_moe exaone4 exaone_moe falcon_h1 flex_olmo flint gemma4_text glm glm4 glm4_moe
        glm4_moe_lite glm_moe_dsa gpt_oss granite_swa granitemoe granitemoe_swa granitemoehybrid
        granitemoeshared helium hunyuan_v1_dense hunyuan_v1_moe hy_v3 hy_v4 hyperclovax inkling_text jais2
        jetmoe kimi_linear kolibri1 laguna lfm2 lfm2_moe lfm3 llama4_text mellum mimo_v2_flash minicpm3
        minimax minimax_m2 minimax_m3_vl_text ministral ministral3 modernbert-decoder nanochat nemotron
        nemotron_h olmo olmo3 olmo_hybrid olmoe persimmon phimoe qwen2_moe qwen3_5_moe_text qwen3_5_text
        qwen3_moe qwen3_next seed_oss smollm3 solar_open vaultgemma xglm youtu zamba2 zaya
    """,
    ("transformer.h", 4): "gpt2 bloom falcon gptj gpt_neo codegen ctrl gpt-sw3 gpt_bigcode openai-gpt",
    ("model.decoder.layers", 4): "opt bart bigbird_pegasus blenderbot blenderbot-small marian pegasus",
    ("backbone.layers", 4): "mamba falcon_mamba mamba2",
    ("bert.encoder.layer", 4): "bert bert-generation big_bird",
    ("model.layers", 6): "gemma3n_text recurrent_gemma",
    ("roberta.encoder.layer", 4): "camembert roberta",
    ("transformer.blocks", 4): "mpt dbrx",
    ("backbone.blocks", 4): "xlstm",
    ("biogpt.layers", 4): "biogpt",
    ("data2vec_text.encoder.layer", 4): "data2vec-text",
    ("electra.encoder.layer", 4): "electra",
    ("ernie.encoder.layer", 4): "ernie",
    ("gpt_neox.layers", 4): "gpt_neox",
    ("gpt_neox_japanese.layers", 4): "gpt_neox_japanese",
    ("model.layers", 2): "longcat_flash",
    ("model.layers", 9): "zamba",
    ("roformer.encoder.layer", 4): "roformer",
    ("rwkv.blocks", 4): "rwkv",
}
