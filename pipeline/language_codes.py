"""Codes of languages (ISO 639, BCP 47) that mean the same, or of which one contains the other.

Pages declare `deu`, `ger`, `iw` or `nb` where the model says `de`, `he` or `no`. The tables hold the codes that the
model's languages go by besides their own; region and script (`zh-Hant`, `pt-BR`) are cut off before.
"""

SAME = {
    other: code
    for code, others in (
        field.split("=")
        for field in (  # noqa: SIM905 - a table is read as lines
            # withdrawn or other codes of ISO 639-1
            "he=iw,heb id=in,ind yi=ji,yid,ydd jv=jw,jav ro=mo,mol,ron,rum no=nb,nob,nor tl=fil,tgl "
            # three letters (ISO 639-2, both kinds, and 639-3) for two
            "af=afr am=amh an=arg ar=ara,arb as=asm av=ava az=aze,azj ba=bak be=bel bg=bul bh=bih bn=ben "
            "bo=bod,tib br=bre bs=bos ca=cat ce=che co=cos cs=ces,cze cv=chv cy=cym,wel da=dan de=deu,ger dv=div "
            "el=ell,gre en=eng eo=epo es=spa et=est,ekk eu=eus,baq fa=fas,per,pes fi=fin fr=fra,fre fy=fry ga=gle "
            "gd=gla gl=glg gn=grn,gug gu=guj gv=glv hi=hin hr=hrv,scr ht=hat hu=hun hy=hye,arm ia=ina ie=ile "
            "io=ido is=isl,ice it=ita ja=jpn ka=kat,geo kk=kaz km=khm kn=kan ko=kor ku=kur,kmr kv=kom,kpv kw=cor "
            "ky=kir la=lat lb=ltz li=lim lo=lao lt=lit lv=lav,lvs mg=mlg,plt mk=mkd,mac ml=mal mn=mon,khk mr=mar "
            "ms=msa,may,zsm mt=mlt my=mya,bur ne=nep,npi nl=nld,dut nn=nno oc=oci or=ori,ory os=oss pa=pan pl=pol "
            "ps=pus,pbu pt=por qu=que,quz rm=roh ru=rus sa=san sc=srd,src sd=snd sh=hbs si=sin sk=slk,slo sl=slv "
            "so=som sq=sqi,alb sr=srp,scc su=sun sv=swe sw=swa,swh ta=tam te=tel tg=tgk th=tha tk=tuk tr=tur "
            "tt=tat ug=uig uk=ukr ur=urd uz=uzb,uzn vi=vie vo=vol wa=wln yo=yor zh=zho,chi,cmn als=gsw bcl=bik "
            "bxr=bua diq=zza mhr=chm gom=kok pnb=lah "
        ).split()
    )
    for other in others.split(",")
}
"""A language's other codes and the one that the model goes by."""

PARTS = {
    part: whole
    for whole, parts in (
        field.split("=")
        for field in (  # noqa: SIM905 - a table is read as lines
            "ar=arz az=azb bh=mai,bho fa=prs ku=ckb no=nn sh=bs,hr,sr zh=yue,wuu,nan,hak mhr=mrj pa=pnb"
        ).split()
    )
    for part in parts.split(",")
}
"""Languages that pages declare, or the model names, by their macrolanguage (ISO 639-3) as well."""

NO_LANGUAGE = frozenset({"und", "mul", "mis", "zxx", "xx"})
"""What a page declares that names none: undetermined, several, uncoded, no language, a template's gap."""


def model_code(code: str) -> str:
    """The code that the model goes by for a language declared as `code`; `code` itself where it has no other."""
    return SAME.get(code, code)


def agree(declared: str, label: str) -> bool:
    """Whether a page declared as `declared` may well be in the language that the model calls `label`."""
    declared = model_code(declared)
    return declared == label or PARTS.get(label) == declared or PARTS.get(declared) == label
