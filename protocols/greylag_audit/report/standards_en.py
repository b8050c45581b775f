"""Others' forms and documents, in English. Titles and clauses are those of the documents."""

STANDARDS_EN = {
    "mapped": "mapped, not certified / 对照，非认证",
    "mapped.clause": "Document and clause",
    "mapped.shows": "What this evidence supports",
    "mapped.lacks": "What it does not show",
    "mapped.here": "In this bundle",
    "mapped.nothing": "no evidence",
    "mapped.holds": "evidence holds",
    "mapped.broken": "evidence broken",
    "mapped.unknown": "unknown",
    "evidence.proved.one": "Proved",
    "evidence.claim.one": "Signed claim",
    "evidence.beyond.one": "Cannot be checked",
    "mechanism.sampled": "Gaussian noise on a sum of clipped gradients of a Poisson sample",
    "mechanism.firm": "Gaussian noise on a sum of clipped updates, one of each firm",
    # -- NIST SP 800-226 -------------------------------------------------------------------------
    "nist": "Appendix A: privacy evaluation after NIST SP 800-226",
    "nist.intro": "NIST SP 800-226, Guidelines for Evaluating Differential Privacy Guarantees "
    "(March 2025), says what to ask about a privacy guarantee. The topics are worded by us. "
    "Signed claim: the firms signed these terms, but nobody outside saw them carried out.",
    "nist.table": "What to ask, and what this run answers",
    "nist.topic": "Topic",
    "nist.run": "This run",
    "nist.class": "Evidence",
    "nist.parameters": "Privacy parameters",
    "nist.parameters.run": "epsilon {epsilon} at delta {delta}, for all {attempts} attempts "
    "together",
    "nist.unit": "Unit of privacy",
    "nist.unit.run": "{unit}",
    "nist.variant": "Variant; what counts as neighbours",
    "nist.variant.run": "approximate (epsilon, delta); data sets that differ by one unit added or "
    "removed",
    "nist.budget": "Privacy budget",
    "nist.budget.run": "the whole run is charged at the first contribution; budgets across runs "
    "are "
    "kept by each firm and are not in the bundle",
    "nist.mechanism": "Mechanism",
    "nist.mechanism.run": "{mechanism}; sigma {sigma}, sampling rate {rate}, clipping norm {clip}",
    "nist.trust": "Trust model",
    "nist.trust.run": "no trusted party sees data: masks hide each firm's part; holds against the "
    "lead and others that run at most {colluding} firms of a round, of {least} at least",
    "nist.accounting": "Composition",
    "nist.accounting.run": "privacy loss distributions within the run; cross-checked by Renyi DP",
    "nist.correctness": "Correctness of the implementation",
    "nist.correctness.run": "the log shows what was charged, not that each firm added its noise",
    "nist.utility": "Utility and bias",
    "nist.utility.run": "not in the bundle: firms never send their metrics",
    "nist.security": "Security, side channels, access control",
    "nist.security.run": "not in the bundle: a matter of each firm's machines and people",
    "nist.collection": "Exposure by data collection",
    "nist.collection.run": "by the method, data stay where they were; how they were collected is "
    "not in the bundle",
    # -- the registry ----------------------------------------------------------------------------
    "registry": "Appendix B: an entry for the deployments registry of OpenDP",
    "registry.intro": "The Differential Privacy Deployments Registry (registry.opendp.org) asks "
    "for "
    "these facts, in three tiers. This is a draft of an entry; nothing has been registered.",
    "registry.table": "Facts by tier",
    "registry.field": "Field",
    "registry.tier": "Tier",
    "registry.value": "This run",
    "registry.curator": "Curator",
    "registry.curator.value": "the consortium {origin}, {firms} firms; each curates its own data",
    "registry.use": "Intended use",
    "registry.use.value": "{purpose}",
    "registry.product": "Data product",
    "registry.product.value": "a model of family {family} with {dimension} weights, and the sums "
    "it "
    "was trained from",
    "registry.date": "Publication date",
    "registry.date.value": "not in the bundle; see the end of this report for the newest time",
    "registry.flavor": "Flavour of differential privacy",
    "registry.flavor.value": "approximate (epsilon, delta)",
    "registry.unit": "Privacy unit",
    "registry.unit.value": "{unit}; one added or removed",
    "registry.loss": "Privacy loss parameters",
    "registry.loss.value": "epsilon {epsilon}, delta {delta}",
    "registry.model": "Deployment model",
    "registry.model.value": "distributed: firms add the noise, secure aggregation hides each part; "
    "up to {colluding} may collude",
    "registry.domain": "Data domain",
    "registry.domain.value": "tables by the standard {standard}, with public bounds for each "
    "column",
    "registry.unprotected": "Unprotected quantities",
    "registry.unprotected.value": "who took part in which round and when, the terms, and each "
    "firm's "
    "count of contributions",
    "registry.accounting": "Post-processing and composition",
    "registry.accounting.value": "the optimiser's step is post-processing of the noisy sum; "
    "{attempts} attempts composed by privacy loss distributions",
    "registry.implementation": "Implementation and security",
    "registry.implementation.value": "greylag, suite {suite}: X25519, Ed25519, AES-256, SHA-256; "
    "noise "
    "on an integer grid from a cryptographic generator",
    # -- China -----------------------------------------------------------------------------------
    "china": "Appendix C: for readers in China",
    "china.intro": "JR/T 0196-2020 is for financial institutions; it is mapped here because it is "
    "the standard nearest to what the firms do. Clauses that are not named were not looked at.",
    "china.table": "Chinese standards and plans, clause by clause",
    "china.jrt.channel": "JR/T 0196-2020 《多方安全计算金融应用技术规范》, 7.5 通信安全 "
    "(communication)",
    "china.jrt.channel.shows": "Every statement is signed by its author, and a changed one is "
    "noticed.",
    "china.jrt.channel.lacks": "The channels themselves leave no trace in a bundle. The algorithms "
    "are international, not those of the national cryptographic standards.",
    "china.jrt.log": "JR/T 0196-2020, 7.6 存证与日志 (evidence and logs)",
    "china.jrt.log.shows": "Results and steps of the computation are kept as evidence; a party "
    "that "
    "breaks the agreement is named.",
    "china.jrt.log.lacks": "Logs of what each firm's users did stay at the firm.",
    "china.jrt.rest": "JR/T 0196-2020, all else (基础要求, the rest of 安全要求, 性能要求)",
    "china.jrt.rest.shows": "Nothing.",
    "china.jrt.rest.lacks": "To be assessed at the firms and at the lead.",
    "china.gbt.general": "GB/T 39786-2021 《信息安全技术 信息系统密码应用基本要求》, 5 通用要求 "
    "(general)",
    "china.gbt.general.shows": "Nothing: the algorithms in use are Ed25519, X25519, AES-256 and "
    "SHA-256.",
    "china.gbt.general.lacks": "SM2, SM3, SM4 and certified products. Where an assessment (密评) "
    "is "
    "due, this suite will not pass it.",
    "china.gbt.data": "GB/T 39786-2021, 应用和数据安全 (applications and data; one group at each "
    "level)",
    "china.gbt.data.shows": "The aims of integrity and of non-repudiation of logged statements, by "
    "signatures and hashes.",
    "china.gbt.data.lacks": "The same with national algorithms; confidentiality of stored data.",
    "china.gbt.rest": "GB/T 39786-2021, physical, network, device and management requirements",
    "china.gbt.rest.shows": "Nothing.",
    "china.gbt.rest.lacks": "To be assessed on the systems themselves.",
    "china.tds.plan": "《可信数据空间发展行动计划（2024—2028年）》, 可信管控能力 (trusted control)",
    "china.tds.plan.shows": "Who took part is known by key; each agreed to the rules before it "
    "contributed, and its participation can be traced.",
    "china.tds.plan.lacks": "An operator of a data space, its certification, and access "
    "authentication by it.",
    "china.tds.contract": "《可信数据空间 技术架构》 (SAC/TC609, 2025-04-30), 7.2 数字合约安全 "
    "(contracts)",
    "china.tds.contract.shows": "The terms are machine-readable, signed by each firm, and cannot "
    "be "
    "changed unnoticed.",
    "china.tds.contract.lacks": "That these terms are a 数字合约 in the document's sense, with a "
    "platform that keeps and executes it.",
    "china.tds.rest": "Both documents, all else (资源交互, 价值共创, 数据产品安全, 空间运行安全)",
    "china.tds.rest.shows": "Nothing.",
    "china.tds.rest.lacks": "Catalogues, identifiers, connectors, pricing, operation.",
    # -- the European Union ----------------------------------------------------------------------
    "europe": "Appendix D: for readers in the European Union",
    "europe.intro": "Whether personal data are in play, and whether the model becomes part of a "
    "high-risk AI system, is for the firms to say; if not, these clauses do not apply.",
    "europe.table": "GDPR and AI Act, clause by clause",
    "europe.dpia.a": "GDPR (Regulation (EU) 2016/679), Art. 35(7)(a): description of the "
    "processing "
    "and its purposes",
    "europe.dpia.a.shows": "Purpose, columns, model, parties, and what leaves a firm, as signed by "
    "all.",
    "europe.dpia.a.lacks": "Which columns are personal data, the controller's interests, storage "
    "periods.",
    "europe.dpia.b": "GDPR, Art. 35(7)(b): necessity and proportionality",
    "europe.dpia.b.shows": "That nothing finer than a noisy sum over a least number of firms was "
    "agreed on, at a stated epsilon.",
    "europe.dpia.b.lacks": "Whether the purpose needs this processing at all; its legal basis.",
    "europe.dpia.c": "GDPR, Art. 35(7)(c): risks to data subjects",
    "europe.dpia.c.shows": "A bound on what the run lets anybody infer about one unit, also for "
    "copies and under collusion (see the odds above).",
    "europe.dpia.c.lacks": "Risks of the data at the firm, of the model's use, and how grave harm "
    "would be. A unit may not be a person.",
    "europe.dpia.d": "GDPR, Art. 35(7)(d): measures against the risks",
    "europe.dpia.d.shows": "Least rosters, budgets counted by each firm, a log that cannot be "
    "rewritten unnoticed.",
    "europe.dpia.d.lacks": "That noise was added; security inside each firm.",
    "europe.dpia.rest": "GDPR, Art. 35(2) advice of the data protection officer, 35(9) views of "
    "data "
    "subjects, Art. 36 prior consultation",
    "europe.dpia.rest.shows": "Nothing.",
    "europe.dpia.rest.lacks": "To be done and written down by each controller.",
    "europe.ai.1": "AI Act (Regulation (EU) 2024/1689), Annex IV, 1: general description",
    "europe.ai.1.shows": "The purpose of the run, and the fingerprint of the released model.",
    "europe.ai.1.lacks": "The intended purpose of the AI system, its provider, interfaces, "
    "instructions for use.",
    "europe.ai.2": "AI Act, Annex IV, 2: elements and development process",
    "europe.ai.2.shows": "The whole training can be repeated bit by bit from the logged sums; "
    "model, "
    "optimiser and data standard are in the terms.",
    "europe.ai.2.lacks": "Where data came from, labelling and cleaning, validation and test "
    "reports, human oversight, cybersecurity.",
    "europe.ai.3": "AI Act, Annex IV, 3: monitoring, functioning and control",
    "europe.ai.3.shows": "Nothing.",
    "europe.ai.3.lacks": "Accuracy, limits, foreseeable side effects, oversight of the system in "
    "use.",
    "europe.ai.4": "AI Act, Annex IV, 4: appropriateness of performance metrics",
    "europe.ai.4.shows": "Nothing: metrics stay at the firms.",
    "europe.ai.4.lacks": "Metrics, and why they fit.",
    "europe.ai.5": "AI Act, Annex IV, 5: risk management system (Art. 9)",
    "europe.ai.5.shows": "Nothing.",
    "europe.ai.5.lacks": "The whole system; the odds above can be one input to it.",
    "europe.ai.6": "AI Act, Annex IV, 6: changes through the lifecycle",
    "europe.ai.6.shows": "Runs and releases in an order that cannot be rewritten unnoticed.",
    "europe.ai.6.lacks": "What changed in the system around the model.",
    "europe.ai.rest": "AI Act, Annex IV, 7 standards applied, 8 EU declaration of conformity, 9 "
    "post-market evaluation",
    "europe.ai.rest.shows": "Nothing.",
    "europe.ai.rest.lacks": "To be supplied by the provider.",
}
